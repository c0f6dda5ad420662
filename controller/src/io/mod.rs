//! What the cloud side does outside its cores: keys, certificates, and the one file that holds the cluster's secret.

pub mod ca;
pub mod csr;
pub mod secret_file;

pub use ca::CertificateAuthority;
pub use csr::{csr_for, new_key_and_csr};
