//! Cipher suites by the names that OpenSSL gives them.

use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::TlsError;

/// Those that are spoken.
const NAMES: [(&str, CipherSuite); 9] = [
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Keeps of `suites` what `names` allow. As with OpenSSL, a list that names no suite of a version
/// leaves that version's suites alone.
///
/// # Errors
/// A name that is not known.
pub(super) fn choose(
    suites: &mut Vec<SupportedCipherSuite>,
    names: &[String],
) -> Result<(), TlsError> {
    let mut chosen = Vec::new();
    for name in names {
        match NAMES.iter().find(|(known, _)| known == name) {
            Some((_, suite)) => chosen.push(*suite),
            None => {
                let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
                let known = known.join(":");
                return Err(TlsError::Options(format!(
                    "no cipher suite {name:?}, expected some of {known}"
                )));
            }
        }
    }
    let all = suites.clone();
    let named = |version: &SupportedProtocolVersion| {
        all.iter()
            .any(|suite| suite.version() == version && chosen.contains(&suite.suite()))
    };
    let (named_1_2, named_1_3) = (named(&version::TLS12), named(&version::TLS13));
    suites.retain(|suite| {
        let named = if suite.version() == &version::TLS12 {
            named_1_2
        } else {
            named_1_3
        };
        !named || chosen.contains(&suite.suite())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::ring::default_provider;

    use super::*;

    #[test]
    fn names_of_one_version_leave_the_other_alone() {
        let mut suites = default_provider().cipher_suites;
        choose(&mut suites, &["ECDHE-RSA-AES128-GCM-SHA256".to_owned()]).unwrap();
        assert_eq!(suites.len(), 4);
        choose(&mut suites, &["TLS_AES_128_GCM_SHA256".to_owned()]).unwrap();
        assert_eq!(suites.len(), 2);
        let error = choose(&mut suites, &["RC4-MD5".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("RC4-MD5"));
    }

    #[test]
    fn every_suite_has_its_name() {
        for suite in default_provider().cipher_suites {
            assert!(NAMES.iter().any(|(_, known)| *known == suite.suite()));
        }
    }
}
