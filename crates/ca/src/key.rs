//! Private keys: reading them in every form that SwarmKit accepts, and signing.
//!
//! Owns the forms (PKCS#8, SEC1, PKCS#1), which kinds of keys are accepted, and the signature
//! algorithm that goes with each. Owns no file; see [`crate::keyfile`] for that.

use std::fmt;

use der::asn1::{AnyRef, BitString, OctetStringRef};
use der::oid::ObjectIdentifier;
use der::{Decode as _, Encode as _, Reader as _, SliceReader};
use pkcs8::{AlgorithmIdentifierRef, PrivateKeyInfo};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use crate::encode::oids;
use crate::pem::{self, PemError};

/// The label of a key in PKCS#8.
pub const PKCS8_LABEL: &str = "PRIVATE KEY";
/// The label of an EC key in SEC1.
pub const SEC1_LABEL: &str = "EC PRIVATE KEY";
/// The label of an RSA key in PKCS#1.
pub const PKCS1_LABEL: &str = "RSA PRIVATE KEY";

/// A private key as PEM text. Wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(Zeroizing<String>);

impl KeyPem {
    /// Takes the text; whether it is a key shows when it is used.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Takes the bytes of a field of an object.
    ///
    /// # Errors
    /// If they are not text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PemError::NotText)?;
        Ok(Self::new(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("KeyPem(hidden)")
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("the private key is not PEM")]
    Pem(#[from] PemError),
    /// A block that is no private key.
    #[error(
        "a PEM block {0:?} is not a private key; accepted are {PKCS8_LABEL:?}, {SEC1_LABEL:?} \
         and {PKCS1_LABEL:?}"
    )]
    Label(String),
    /// The key is encrypted and no key for it was given.
    #[error("the private key is encrypted")]
    Encrypted,
    /// The bytes are not the structure that the label says.
    #[error("the private key is malformed")]
    Malformed,
    /// A kind of key that is not accepted.
    #[error("private keys of kind {0} are not supported; use ECDSA P-256, P-384, or RSA")]
    Kind(String),
    /// ECDSA on the curve P-521, which SwarmKit accepts and `ring` cannot compute.
    #[error(
        "the private key is on the curve P-521, which this program cannot sign with; use P-256 \
         or P-384"
    )]
    P521,
    /// An RSA key outside what is accepted.
    #[error(
        "RSA keys must have 2048 to 4096 bits and a public exponent of at least 65537; this one \
         was refused: {0}"
    )]
    Rsa(String),
    /// An EC key whose structure is right but whose content is refused.
    #[error(
        "the EC private key was refused: {0}; if its public key is missing, write it again with \
         `openssl ec`"
    )]
    Ec(String),
    /// Signing failed, which only a broken random source causes.
    #[error("the private key could not sign")]
    Sign,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256, signs with SHA-256.
    P256,
    /// ECDSA on P-384, signs with SHA-384.
    P384,
    /// RSA of so many bits; signs with SHA-256, from 3072 bits with SHA-384, from 4096 with
    /// SHA-512.
    Rsa(usize),
}

/// A private key that can sign.
pub struct PrivateKey {
    pair: Pair,
    kind: KeyKind,
    /// DER of PKCS#8.
    pkcs8: Zeroizing<Vec<u8>>,
    /// DER of the public key with its algorithm.
    spki: Vec<u8>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey({:?})", self.kind)
    }
}

impl PrivateKey {
    /// Draws a new key on P-256.
    pub fn generate() -> Self {
        let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
            .expect("the operating system gives random bytes");
        Self::from_pkcs8(pkcs8.as_ref()).expect("a key that ring made is one that ring reads")
    }

    /// Reads a key in any of the accepted forms.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &KeyPem) -> Result<Self, KeyError> {
        let block = pem::read_one(text.as_bytes())?;
        Self::from_block(&block.label, &block.der)
    }

    /// Reads the bytes of a PEM block.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_block(label: &str, der: &[u8]) -> Result<Self, KeyError> {
        match label {
            PKCS8_LABEL => Self::from_pkcs8(der),
            SEC1_LABEL => Self::from_pkcs8(&sec1_to_pkcs8(der)?),
            PKCS1_LABEL => Self::from_pkcs8(&pkcs1_to_pkcs8(der)?),
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            other => Err(KeyError::Label(other.chars().take(40).collect())),
        }
    }

    /// Reads PKCS#8.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfo::try_from(der).map_err(|_| KeyError::Malformed)?;
        let (pair, kind) = match info.algorithm.oid {
            oids::EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters_oid();
                ecdsa(curve.map_err(|_| KeyError::Malformed)?, der)?
            }
            oids::RSA => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|e| KeyError::Rsa(e.to_string()))?;
                let kind = KeyKind::Rsa(pair.public().modulus_len() * 8);
                (Pair::Rsa(pair), kind)
            }
            other => return Err(KeyError::Kind(other.to_string())),
        };
        let spki = spki(&pair, kind)?;
        let pkcs8 = Zeroizing::new(der.to_vec());
        Ok(Self {
            pair,
            kind,
            pkcs8,
            spki,
        })
    }

    /// PEM text of PKCS#8.
    pub fn to_pem(&self) -> KeyPem {
        KeyPem::new(pem::write(PKCS8_LABEL, &self.pkcs8))
    }

    /// DER of PKCS#8.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// DER of the public key with its algorithm.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Signs; the algorithm is [`PrivateKey::signature_algorithm`].
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub(crate) fn sign(&self, message: &[u8]) -> Result<BitString, KeyError> {
        let random = SystemRandom::new();
        let bytes = match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| KeyError::Sign)?;
                signature.as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &dyn signature::RsaEncoding = match self.kind {
                    KeyKind::Rsa(bits) if bits >= 4096 => &signature::RSA_PKCS1_SHA512,
                    KeyKind::Rsa(bits) if bits >= 3072 => &signature::RSA_PKCS1_SHA384,
                    KeyKind::Rsa(_) | KeyKind::P256 | KeyKind::P384 => &signature::RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut signature)
                    .map_err(|_| KeyError::Sign)?;
                signature
            }
        };
        BitString::from_bytes(&bytes).map_err(|_| KeyError::Sign)
    }

    /// The algorithm that SwarmKit's signer picks for such a key.
    pub(crate) fn signature_algorithm(&self) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self.kind {
            KeyKind::P256 => (oids::ECDSA_SHA256, None),
            KeyKind::P384 => (oids::ECDSA_SHA384, None),
            KeyKind::Rsa(bits) if bits >= 4096 => (oids::RSA_SHA512, Some(AnyRef::NULL)),
            KeyKind::Rsa(bits) if bits >= 3072 => (oids::RSA_SHA384, Some(AnyRef::NULL)),
            KeyKind::Rsa(_) => (oids::RSA_SHA256, Some(AnyRef::NULL)),
        };
        AlgorithmIdentifierOwned {
            oid,
            parameters: parameters.map(Into::into),
        }
    }
}

fn ecdsa(curve: ObjectIdentifier, der: &[u8]) -> Result<(Pair, KeyKind), KeyError> {
    let (algorithm, kind) = match curve {
        oids::P256 => (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, KeyKind::P256),
        oids::P384 => (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, KeyKind::P384),
        oids::P521 => return Err(KeyError::P521),
        other => return Err(KeyError::Kind(format!("EC on curve {other}"))),
    };
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new());
    let pair = pair.map_err(|error| KeyError::Ec(error.to_string()))?;
    Ok((Pair::Ecdsa(pair), kind))
}

fn spki(pair: &Pair, kind: KeyKind) -> Result<Vec<u8>, KeyError> {
    let (bytes, oid, parameters) = match (pair, kind) {
        (Pair::Ecdsa(pair), KeyKind::P384) => (
            pair.public_key().as_ref(),
            oids::EC_PUBLIC_KEY,
            AnyRef::from(&oids::P384),
        ),
        (Pair::Ecdsa(pair), KeyKind::P256 | KeyKind::Rsa(_)) => (
            pair.public_key().as_ref(),
            oids::EC_PUBLIC_KEY,
            AnyRef::from(&oids::P256),
        ),
        (Pair::Rsa(pair), _) => (pair.public_key().as_ref(), oids::RSA, AnyRef::NULL),
    };
    let spki = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid,
            parameters: Some(parameters.into()),
        },
        subject_public_key: BitString::from_bytes(bytes).map_err(|_| KeyError::Malformed)?,
    };
    spki.to_der().map_err(|_| KeyError::Malformed)
}

/// Puts a SEC1 key, which names its curve itself, into PKCS#8.
fn sec1_to_pkcs8(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let curve = sec1_curve(der).map_err(|_| KeyError::Malformed)?;
    let parameters = Some(AnyRef::from(&curve));
    to_pkcs8(oids::EC_PUBLIC_KEY, parameters, der)
}

fn sec1_curve(der: &[u8]) -> der::Result<ObjectIdentifier> {
    let mut reader = SliceReader::new(der)?;
    let curve = reader.sequence(|key| {
        u8::decode(key)?;
        OctetStringRef::decode(key)?;
        let parameters: AnyRef<'_> = key.decode()?;
        let curve = ObjectIdentifier::from_der(parameters.value())?;
        while !key.is_finished() {
            key.tlv_bytes()?;
        }
        Ok(curve)
    })?;
    reader.finish(curve)
}

fn pkcs1_to_pkcs8(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    to_pkcs8(oids::RSA, Some(AnyRef::NULL), der)
}

fn to_pkcs8(
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'_>>,
    inner: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let info = PrivateKeyInfo::new(algorithm, inner);
    let der = info.to_der().map_err(|_| KeyError::Malformed)?;
    Ok(Zeroizing::new(der))
}
