//! Client of an SSH agent: has a key sign that never leaves the agent, such as one with a passphrase or a security key.
//!
//! The protocol is `draft-ietf-sshm-ssh-agent`: a length, a type and fields; two exchanges are needed.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ssh_encoding::{Decode, Encode};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Signature};

/// Message types of the protocol.
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Flag of a request to sign with an RSA key: with SHA-512, not SHA-1.
const RSA_SHA2_512: u32 = 4;
/// Maximum length of a response, in bytes: that of OpenSSH's agent.
const MAX_RESPONSE_BYTES: u32 = 256 << 10;
/// Time for a person to confirm, or to touch a security key.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Has the agent behind a socket sign data with a key.
pub(super) fn sign(socket: &Path, key: &KeyData, data: &[u8]) -> Result<Signature> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(CONFIRMATION_TIMEOUT))?;
    let mut body = vec![SIGN_REQUEST];
    let mut blob = Vec::new();
    key.encode(&mut blob).map_err(Error::other)?;
    blob.encode(&mut body).map_err(Error::other)?;
    data.encode(&mut body).map_err(Error::other)?;
    let flags = if matches!(key.algorithm(), Algorithm::Rsa { .. }) { RSA_SHA2_512 } else { 0 };
    body.extend_from_slice(&flags.to_be_bytes());
    let mut message = Vec::new();
    body.encode(&mut message).map_err(Error::other)?;
    stream.write_all(&message)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_RESPONSE_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, "the agent's response is too long"));
    }
    let mut response = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut response)?;
    match response.split_first() {
        Some((&SIGN_RESPONSE, mut fields)) => {
            let signature = Vec::<u8>::decode(&mut fields).map_err(|error| invalid(&error))?;
            Signature::decode(&mut signature.as_slice()).map_err(|error| invalid(&error))
        }
        _ => Err(Error::new(
            ErrorKind::PermissionDenied,
            "the agent has not signed: it does not have the key, or the person did not confirm; `ssh-add -l` lists \
             its keys",
        )),
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the agent's response is not valid: {error}"))
}
