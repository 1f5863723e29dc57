//! The bytes of a connection: plain or encrypted, and recorded.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connections::ConnectionState;

/// A write of at least this many bytes is part of a response; shorter ones may be HTTP/2 pings.
const MIN_RESPONSE_BYTES: usize = 64;
/// First byte of a TLS connection: the type of a record with a handshake.
const TLS_HANDSHAKE: u8 = 22;
/// Answer to a client that does not encrypt.
const NOT_ENCRYPTED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 52\r\n\
    Connection: close\r\n\r\nthis port speaks TLS only; use https:// in the URL\r\n";

/// A connection of a listener with or without TLS.
pub(crate) enum Transport {
    /// Not encrypted.
    Plain(TcpStream),
    /// Encrypted; boxed because its state is large, and most connections of a listener without TLS have none.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Makes the handshake. A client that does not encrypt gets an answer that says so.
    pub(crate) async fn encrypted(mut stream: TcpStream, acceptor: TlsAcceptor) -> Result<Self> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
            // Read, since closing a connection with unread bytes may discard the answer.
            let mut request = [0; 4096];
            let _size = stream.read(&mut request).await?;
            stream.write_all(NOT_ENCRYPTED).await?;
            stream.shutdown().await?;
            return Err(std::io::Error::other("the client does not encrypt"));
        }
        Ok(Self::Tls(Box::new(acceptor.accept(stream).await?)))
    }

    /// Whether it is encrypted.
    pub(crate) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! of_stream {
    ($transport:expr, $method:ident($($argument:expr),*)) => {
        match $transport {
            Transport::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Transport::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

/// A stream that records when bytes are read and responses are written.
pub(crate) struct TrackedStream {
    transport: Transport,
    state: Arc<ConnectionState>,
}

impl TrackedStream {
    pub(crate) const fn new(transport: Transport, state: Arc<ConnectionState>) -> Self {
        Self { transport, state }
    }

    fn wrote(&self, written: &Poll<Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(bytes)) if *bytes >= MIN_RESPONSE_BYTES) {
            self.state.touch();
        }
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = of_stream!(&mut self.transport, poll_read(context, buffer));
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.state.bytes_read(bytes);
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = of_stream!(&mut self.transport, poll_write(context, bytes));
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = of_stream!(&mut self.transport, poll_write_vectored(context, slices));
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        of_stream!(&mut self.transport, poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        of_stream!(&mut self.transport, poll_shutdown(context))
    }
}
