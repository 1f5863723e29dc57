//! Passwords: argon2id, for people who only read.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

/// Smallest length of a password, in characters; longer ones need no rules about characters (NIST SP 800-63B).
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Largest length, in bytes: hashing has to end soon.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Checks that a new password can be used.
///
/// # Errors
/// Returns the rule that it breaks.
pub fn check_new_password(password: &str) -> Result<(), String> {
    let (chars, bytes) = (password.chars().count(), password.len());
    if chars < MIN_PASSWORD_CHARS {
        return Err(format!("it has {chars} characters; at least {MIN_PASSWORD_CHARS} are needed"));
    }
    if bytes > MAX_PASSWORD_BYTES {
        return Err(format!("it has {bytes} bytes; at most {MAX_PASSWORD_BYTES} are possible"));
    }
    Ok(())
}

/// Hashes a password with a random salt: argon2id in PHC's form.
///
/// # Errors
/// Returns the reason if it cannot be hashed.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt: [u8; 16] = rand::random();
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// Returns whether a password is the hashed one. Without a hash it takes as long, and is not: so that the time does not
/// tell who has an account.
pub fn password_matches(password: &str, hash: Option<&str>) -> bool {
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    let Some(hash) = hash.and_then(|hash| PasswordHash::new(hash).ok()) else {
        drop(hash_password(password));
        return false;
    };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashed_password_matches() {
        let hash = hash_password("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hash_password("correct horse battery").unwrap(), "each has a salt of its own");
        assert!(password_matches("correct horse battery", Some(&hash)));
        for (password, hash) in [
            ("correct horse batterx", Some(hash.as_str())),
            ("", Some(hash.as_str())),
            ("correct horse battery", None),
            ("correct horse battery", Some("")),
            ("correct horse battery", Some("correct horse battery")),
        ] {
            assert!(!password_matches(password, hash), "{password:?} {hash:?}");
        }
        assert!(!password_matches(&"x".repeat(2000), Some(&hash)));
    }

    #[test]
    fn short_passwords_are_refused() {
        assert!(check_new_password("twelve chars").is_ok());
        assert!(check_new_password("eleven char").unwrap_err().contains("at least 12"));
        assert!(check_new_password(&"x".repeat(1025)).is_err());
    }
}
