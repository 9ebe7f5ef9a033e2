//! Pairs that fit, pairs that do not, and names.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aiproxy_config::model::{CertificateFiles, Certificates, Tls};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::{Loader, certified, choice::Choice, describe, expiry};

fn write(folder: &Path, name: &str, names: &[&str]) -> CertificateFiles {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = date_time_ymd(2051, 2, 3);
    let key = KeyPair::generate().unwrap();
    let pair = CertificateFiles {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    };
    fs::write(&pair.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}

fn files(pairs: Vec<CertificateFiles>) -> Tls {
    Tls { certificates: Certificates::Files(pairs), client_ca: None }
}

#[test]
fn names_choose_and_the_first_is_for_everybody_else() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = [("one", &["a.test", "*.w.test"][..]), ("two", &["b.test", "a.test", "x.w.test"])];
    let mut choice = Choice::default();
    let mut keys = Vec::new();
    for (name, names) in pairs {
        let key = Arc::new(certified(&write(folder.path(), name, names)).unwrap());
        let seen = describe(&key).unwrap();
        assert_eq!(seen.names, names);
        choice.add(&seen.names, Arc::clone(&key));
        keys.push(key);
    }
    for (asked, index) in [
        (Some("a.test"), 0),
        (Some("A.Test"), 0),
        (Some("b.test"), 1),
        (Some("y.w.test"), 0),
        (Some("x.w.test"), 1),
        (Some("z.y.w.test"), 0),
        (Some("w.test"), 0),
        (Some("unknown"), 0),
        (None, 0),
    ] {
        assert!(Arc::ptr_eq(&choice.of(asked).unwrap(), &keys[index]), "{asked:?}");
    }
}

#[test]
fn the_end_of_validity_is_read_in_both_notations() {
    let folder = tempfile::tempdir().unwrap();
    let pair = write(folder.path(), "one", &["a.test"]);
    let key = certified(&pair).unwrap();
    // 2051 is written as GeneralizedTime.
    assert_eq!(expiry::of(key.end_entity_cert().unwrap()), Some(2_558_995_200));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2028, 2, 29);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    assert_eq!(expiry::of(&der), Some(1_835_395_200));
    for cut in 0..der.len().min(200) {
        let _ = expiry::of(&der[..cut]);
    }
    assert_eq!(expiry::of(b""), None);
    assert_eq!(expiry::of(&[0x30, 0x83, 0xff, 0xff, 0xff]), None);
}

#[test]
fn what_cannot_be_used_is_named_and_no_key_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::new().unwrap();
    let (one, two) = (write(folder.path(), "one", &["a.test"]), write(folder.path(), "two", &["b.test"]));
    assert_eq!(
        loader.load(&files(vec![one.clone(), two.clone()]), folder.path()).unwrap().certificates.len(),
        2
    );
    let text = fs::read_to_string(&one.key).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let broken = folder.path().join("broken");
    fs::write(&broken, format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n"))
        .unwrap();
    for (cert, key, says) in [
        (&one.cert, &two.key, "is not the key of"),
        (&one.key, &one.key, "holds no certificate"),
        (&one.cert, &one.cert, "holds no private key"),
        (&one.cert, &broken, "holds no private key"),
        (&folder.path().join("none"), &one.key, "none: "),
    ] {
        let pair = CertificateFiles { cert: cert.clone(), key: key.clone() };
        let error = loader.load(&files(vec![pair]), folder.path()).unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn a_self_signed_certificate_stays_the_same() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::new().unwrap();
    let tls = Tls { certificates: Certificates::SelfSigned, client_ca: None };
    let first = loader.load(&tls, folder.path()).unwrap().certificates;
    assert_eq!(first[0].names, ["localhost"]);
    assert_eq!(loader.load(&tls, folder.path()).unwrap().certificates, first);
    let key = folder.path().join("tls/self-signed.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&key, "damaged").unwrap();
    assert_ne!(loader.load(&tls, folder.path()).unwrap().certificates, first);
}
