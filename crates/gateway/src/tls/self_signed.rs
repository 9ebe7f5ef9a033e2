//! A certificate for development: made once, kept, so that whoever has looked at its fingerprint
//! need not look again.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_config::model::CertificateFiles;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

use super::{certified, expiry, named};

/// Names by which a machine reaches itself.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const YEARS: i64 = 10;
const YEAR: i64 = 31_556_952;

/// The pair in this folder; made where there is none that can be used.
pub(super) fn kept_in(data_dir: &Path) -> Result<CertificateFiles, String> {
    let folder = data_dir.join("tls");
    let pair = CertificateFiles { cert: folder.join("self-signed.pem"), key: folder.join("self-signed.key") };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let usable = certified(&pair).ok().and_then(|key| expiry::of(key.end_entity_cert().ok()?));
    if usable.is_none_or(|expires| expires <= now) {
        make(&folder, &pair, now)?;
    }
    Ok(pair)
}

fn make(folder: &Path, pair: &CertificateFiles, now: i64) -> Result<(), String> {
    let failed = |error: rcgen::Error| format!("cannot make a certificate: {error}");
    let mut params = CertificateParams::new(NAMES.map(str::to_owned).to_vec()).map_err(failed)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "AIProxy self-signed");
    params.distinguished_name = subject;
    let year = i32::try_from(1970 + now / YEAR).unwrap_or(2026);
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + YEARS as i32, 1, 1);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    fs::create_dir_all(folder).map_err(|error| named(folder, error))?;
    // The key first: a certificate alone is never taken for a whole pair.
    write(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&pair.cert, certificate.pem().as_bytes(), 0o644)
}

/// In one step, so that a process that ends in between leaves no half of a file.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fresh: PathBuf = path.with_extension("new");
    let written = || {
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(|error| named(path, error))
}
