//! The joining side's half of a certificate: a key that never leaves the node, and the request made with it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A new ECDSA P-256 key and a request for a certificate of it, both DER (PKCS#8, PKCS#10).
///
/// P-256 because every TPM, secure element and TLS stack that an edge may meet can hold it.
pub fn new_key_and_csr() -> Result<(PrivatePkcs8KeyDer<'static>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let csr = request(&key)?;
    Ok((key.serialize_der().into(), csr))
}

/// A request made with a key that exists: the same key may join again under its name, for instance when the first
/// reply was lost.
pub fn csr_for(key: &PrivatePkcs8KeyDer<'_>) -> Result<Vec<u8>, rcgen::Error> {
    request(&KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256)?)
}

/// Asks for no name: the cloud decides who this is.
fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}
