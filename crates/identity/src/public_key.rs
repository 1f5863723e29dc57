//! Public keys of issuers and passkeys, and the verification of their signatures with ring.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

/// Smallest RSA modulus that is accepted, in bytes: 2048 bits.
const MIN_RSA_BYTES: usize = 256;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA of at least 2048 bits: modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// A point of P-256, uncompressed: 65 bytes.
    P256(Vec<u8>),
    /// A point of P-384, uncompressed: 97 bytes.
    P384(Vec<u8>),
    /// An Ed25519 key: 32 bytes.
    Ed25519(Vec<u8>),
}

/// Algorithm of a signature. Those with a shared secret, and `none`, do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// Form of an ECDSA signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcdsaForm {
    /// Both numbers one after the other, as in JWS.
    Fixed,
    /// ASN.1, as in WebAuthn.
    Asn1,
}

impl Algorithm {
    /// Parses the `alg` of a JOSE header. `None` for every other algorithm.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

impl PublicKey {
    /// Makes an RSA key of the numbers' bytes.
    ///
    /// # Errors
    /// Returns the reason if the modulus is too small.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let without_zeros = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (n, e) = (without_zeros(n), without_zeros(e));
        if n.len() < MIN_RSA_BYTES || e.is_empty() {
            return Err(format!("an RSA key of {} bits; at least {} are needed", n.len() * 8, MIN_RSA_BYTES * 8));
        }
        Ok(Self::Rsa { n, e })
    }

    /// Makes a key of a point's coordinates.
    ///
    /// # Errors
    /// Returns the reason if a coordinate does not have the curve's length.
    pub fn point(x: &[u8], y: &[u8], coordinate_bytes: usize) -> Result<Self, String> {
        if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
            return Err(format!("coordinates of {} and {} bytes, not {coordinate_bytes}", x.len(), y.len()));
        }
        let point = [&[4], x, y].concat();
        Ok(if coordinate_bytes == 32 { Self::P256(point) } else { Self::P384(point) })
    }

    /// Makes an Ed25519 key.
    ///
    /// # Errors
    /// Returns the reason if it does not have 32 bytes.
    pub fn ed25519(x: &[u8]) -> Result<Self, String> {
        if x.len() == 32 { Ok(Self::Ed25519(x.to_vec())) } else { Err(format!("a key of {} bytes, not 32", x.len())) }
    }

    /// Returns the one algorithm of a key that has just one; an RSA key has several.
    const fn only_algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Rsa { .. } => None,
            Self::P256(_) => Some(Algorithm::Es256),
            Self::P384(_) => Some(Algorithm::Es384),
            Self::Ed25519(_) => Some(Algorithm::EdDsa),
        }
    }

    /// Returns whether the key can have made signatures of the algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        match self.only_algorithm() {
            Some(only) => only == algorithm,
            None => !matches!(algorithm, Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa),
        }
    }

    /// Returns whether the signature over the message was made with this key.
    pub fn verifies(&self, algorithm: Algorithm, form: EcdsaForm, message: &[u8], signature: &[u8]) -> bool {
        let with = |method: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(method, key).verify(message, signature).is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa { n, e }, _) => {
                let parameters = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Self::P256(point), Algorithm::Es256) => match form {
                EcdsaForm::Fixed => with(&signature::ECDSA_P256_SHA256_FIXED, point),
                EcdsaForm::Asn1 => with(&signature::ECDSA_P256_SHA256_ASN1, point),
            },
            (Self::P384(point), Algorithm::Es384) => match form {
                EcdsaForm::Fixed => with(&signature::ECDSA_P384_SHA384_FIXED, point),
                EcdsaForm::Asn1 => with(&signature::ECDSA_P384_SHA384_ASN1, point),
            },
            (Self::Ed25519(key), Algorithm::EdDsa) => with(&signature::ED25519, key),
            _ => false,
        }
    }
}
