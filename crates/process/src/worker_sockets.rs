//! Sockets between the server and its query workers, passed on by the supervisor.
//!
//! Problem: the server may not start processes, and a path in the file system would let other processes connect. Model:
//! the supervisor starts each worker with one end of a new socket pair as its standard input, and passes the other end
//! to the server over a control socket, which is the server's standard input. On the same socket the server asks for
//! workers and names those to kill. Guarantee: only the supervisor can add a worker; if a worker ends, its socket does.

use std::io::{Error, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

/// Number of a worker process, unique during the life of the supervisor.
pub type WorkerId = u32;

/// Length of a message on the control socket: a [`WorkerId`], or [`START`].
const MESSAGE_BYTES: usize = size_of::<WorkerId>();
/// The message that asks for workers. No worker has this number.
const START: WorkerId = WorkerId::MAX;

/// What the server asks the supervisor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerRequest {
    /// Starting the workers, and from then on each one that ends.
    Start,
    /// Killing a worker.
    Kill(WorkerId),
}

/// The supervisor's end of the control socket.
#[derive(Debug)]
pub(crate) struct SupervisorEnd(OwnedFd);

/// The server's end of the control socket.
#[derive(Debug)]
pub struct ControlSocket(OwnedFd);

/// Creates a control socket.
///
/// # Errors
/// Returns an error if the process has too many open files.
pub(crate) fn control_socket() -> Result<(SupervisorEnd, ControlSocket)> {
    // Each message is received as a whole, with its descriptor.
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((SupervisorEnd(ours), ControlSocket(theirs)))
}

/// Returns the socket that a query worker was started with.
///
/// # Errors
/// Returns an error if standard input is closed.
pub fn worker_socket() -> Result<UnixStream> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}

impl SupervisorEnd {
    /// Passes the socket of a new worker to the server. Does not wait for it.
    pub(crate) fn pass_worker(&self, id: WorkerId, socket: &UnixStream) -> Result<()> {
        let (message, descriptors) = (id.to_le_bytes(), [socket.as_fd()]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Error::other("the control message has no space for a descriptor"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&message)], &mut control, flags))?;
        Ok(())
    }

    /// Waits for a request of the server; returns `None` once the server has ended.
    pub(crate) fn next_request(&self) -> Result<Option<WorkerRequest>> {
        let request = |(id, _)| if id == START { WorkerRequest::Start } else { WorkerRequest::Kill(id) };
        Ok(receive(&self.0)?.map(request))
    }
}

impl ControlSocket {
    /// Returns the control socket that the server was started with.
    ///
    /// # Errors
    /// Returns an error if standard input is closed.
    pub fn from_stdin() -> Result<Self> {
        Ok(Self(std::io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Waits for a new worker; returns `None` once the supervisor has ended.
    ///
    /// # Errors
    /// Returns an error if standard input is no control socket.
    pub fn next_worker(&self) -> Result<Option<(WorkerId, UnixStream)>> {
        while let Some((id, socket)) = receive(&self.0)? {
            if let Some(socket) = socket {
                return Ok(Some((id, socket.into())));
            }
            // The kernel drops a descriptor that exceeds the limit of open files.
            tracing::error!(worker = id, "a query worker's socket was lost: too many open files");
        }
        Ok(None)
    }

    /// Asks the supervisor to start the workers.
    ///
    /// # Errors
    /// Returns an error if the supervisor has ended or does not read.
    pub fn start(&self) -> Result<()> {
        self.send(START)
    }

    /// Asks the supervisor to kill a worker. Does nothing if it has ended.
    ///
    /// # Errors
    /// Returns an error if the supervisor has ended or does not read.
    pub fn kill(&self, id: WorkerId) -> Result<()> {
        self.send(id)
    }

    fn send(&self, id: WorkerId) -> Result<()> {
        retry_on_intr(|| send(&self.0, &id.to_le_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT))?;
        Ok(())
    }
}

impl From<ControlSocket> for OwnedFd {
    fn from(socket: ControlSocket) -> Self {
        socket.0
    }
}

/// Receives a message and the descriptor that came with it; `None` at the end.
fn receive(socket: &OwnedFd) -> Result<Option<(WorkerId, Option<OwnedFd>)>> {
    let mut message = [0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(Some((WorkerId::from_le_bytes(message), descriptor)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn workers_arrive_with_their_socket_and_are_killed_by_number() {
        let (supervisor, server) = control_socket().unwrap();
        let (mut worker, passed) = UnixStream::pair().unwrap();
        supervisor.pass_worker(7, &passed).unwrap();
        drop(passed);
        let (id, mut socket) = server.next_worker().unwrap().unwrap();
        assert_eq!(id, 7);
        worker.write_all(b"row").unwrap();
        drop(worker);
        let mut received = String::new();
        socket.read_to_string(&mut received).unwrap();
        assert_eq!(received, "row", "and the end of the worker is seen");
        server.kill(7).unwrap();
        server.start().unwrap();
        assert_eq!(supervisor.next_request().unwrap(), Some(WorkerRequest::Kill(7)));
        assert_eq!(supervisor.next_request().unwrap(), Some(WorkerRequest::Start));
        drop(server);
        assert_eq!(supervisor.next_request().unwrap(), None);
    }

    #[test]
    fn the_end_of_the_supervisor_is_seen() {
        let (supervisor, server) = control_socket().unwrap();
        drop(supervisor);
        assert!(server.next_worker().unwrap().is_none());
        assert!(server.kill(1).is_err());
    }
}
