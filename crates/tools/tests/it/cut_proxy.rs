//! A proxy between a tool and its target that cuts them off at a step: a piece of a request.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::contract::{Cut, Step};

/// Starts a proxy of an address; returns its own.
pub(crate) fn tcp(target: &str, cut: &Arc<Cut>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, target, cut) = (listener.local_addr().unwrap(), target.to_owned(), Arc::clone(cut));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&target).unwrap();
            let (client_reader, server_reader) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let cut = Arc::clone(&cut);
            let close = move |one: &TcpStream, two: &TcpStream| {
                drop((one.shutdown(Shutdown::Both), two.shutdown(Shutdown::Both)));
            };
            let muted = Arc::new(AtomicBool::new(false));
            let muted_back = Arc::clone(&muted);
            std::thread::spawn(move || pump_back(server_reader, client, &muted_back));
            std::thread::spawn(move || pump(client_reader, server, (&cut, &muted), close));
        }
    });
    address.to_string()
}

/// Starts a proxy of a Unix socket; returns the path of its own.
pub(crate) fn unix(target: &Path, dir: &Path, cut: &Arc<Cut>) -> PathBuf {
    let path = dir.join("cut.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (target, cut) = (target.to_owned(), Arc::clone(cut));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = UnixStream::connect(&target).unwrap();
            let (client_reader, server_reader) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let cut = Arc::clone(&cut);
            let close = move |one: &UnixStream, two: &UnixStream| {
                drop((one.shutdown(Shutdown::Both), two.shutdown(Shutdown::Both)));
            };
            let muted = Arc::new(AtomicBool::new(false));
            let muted_back = Arc::clone(&muted);
            std::thread::spawn(move || pump_back(server_reader, client, &muted_back));
            std::thread::spawn(move || pump(client_reader, server, (&cut, &muted), close));
        }
    });
    path
}

/// Passes requests on, until the cut.
fn pump<S: Read + Write>(mut client: S, mut server: S, (cut, muted): (&Cut, &AtomicBool), close: impl Fn(&S, &S)) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        match cut.step() {
            Step::Passes => {
                if server.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Step::Lost => {
                muted.store(true, Ordering::SeqCst);
                drop(server.write_all(&buffer[..count]));
                // The target gets time to act before it sees that the client is gone.
                std::thread::sleep(std::time::Duration::from_millis(150));
                break;
            }
            Step::Blocked => break,
        }
    }
    close(&client, &server);
}

/// Passes responses back, until they are lost.
fn pump_back<S: Read + Write>(mut server: S, mut client: S, muted: &AtomicBool) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        if muted.load(Ordering::SeqCst) || client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}
