//! Tests that need something which a machine may lack.

/// Says why a test ends early. Fails where `TINYRES_STRICT` is set, as in CI: a check that is missing there
/// would go unnoticed.
pub fn skip(reason: &str) {
    let strict = std::env::var_os("TINYRES_STRICT").is_some();
    assert!(!strict, "cannot run: {reason}");
    println!("skipped: {reason}");
}
