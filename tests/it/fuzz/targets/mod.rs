//! What is tried with every input: a parser, and what has to hold of what it makes of it.
//!
//! The tests run these targets over the kept inputs and over random ones; the package in `tests/fuzz`
//! runs the same code under libFuzzer, which looks for inputs that reach new code.

mod directory;
mod names;
mod request;
mod wire;

/// Something that takes any bytes. It panics when they do harm, and does nothing else.
pub struct Target {
    /// Also the name of the directory of its kept inputs.
    pub name: &'static str,
    /// Tries an input.
    pub run: fn(&[u8]),
    /// What is worth putting into an input: the words and marks of the format.
    pub words: &'static [&'static str],
    /// Random inputs in one run of the tests.
    pub inputs: usize,
}

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    words: &'static [&'static str],
    inputs: usize,
) -> Target {
    Target { name, run, words, inputs }
}

/// All of them.
pub const ALL: &[Target] = &[
    target("audit", wire::audit, &["\n", "\"seq\":", "\"hash\":", "\"prev\":", "{", "}"], 2_000),
    target("certificate", wire::certificate, &[], 4_000),
    target("crl", wire::crl, &["-----BEGIN X509 CRL-----\n", "-----END X509 CRL-----\n"], 4_000),
    target(
        "directory_answer",
        directory::answer,
        &["\x04\x00", "\x30\x03", "\x0a\x01\x00"],
        20_000,
    ),
    target("directory_filter", directory::filter, directory::FILTER_WORDS, 20_000),
    target("directory_name", directory::name, &["cn=", "\\", "\\2c", ",", "+", ";", " "], 20_000),
    target(
        "duration",
        names::duration,
        &["h", "m", "s", "ms", "d", "-", "9", "18446744073"],
        20_000,
    ),
    target("grant", names::grant, &["*", "+", "/", "\n", "%2e", "%2f", "..", "%41"], 10_000),
    target(
        "otp",
        wire::otp,
        &["otpauth://totp/", "secret=", "&", "issuer=", "%3a", "digits="],
        20_000,
    ),
    target("password_policy", names::password_policy, names::PASSWORD_WORDS, 2_000),
    target("path", names::path, &["%2e", "%2F", "%00", "//", "/./", "/../", "%c3%a9", "%"], 20_000),
    target(
        "pem",
        wire::pem,
        &["-----BEGIN CERTIFICATE-----\n", "-----END PRIVATE KEY-----\n"],
        4_000,
    ),
    target("policy", names::policy, names::POLICY_WORDS, 10_000),
    target("request", request::request, request::WORDS, 1_500),
    target("scope", names::scope, &["\n", "read", "list", "*", "+", ":", ",", "/"], 10_000),
    target("sealed", wire::sealed, &[], 4_000),
    target("shares", wire::shares, &["=", "ff", "00", "\n"], 4_000),
    target("signed_token", wire::signed_token, wire::JOSE_WORDS, 10_000),
    target("spiffe", names::spiffe, &["spiffe://", "/", "..", "%2e", "\u{e9}", ":80", "@"], 20_000),
    target("ssh", wire::ssh, &["ssh-ed25519 ", "ssh-rsa ", "AAAA", " ", "cert-authority "], 10_000),
    target("statements", names::statements, names::SQL_WORDS, 10_000),
    target("template", names::template, names::TEMPLATE_WORDS, 20_000),
    target("token", wire::token, &["lhs.", "lhb.", ".", "-", "_"], 20_000),
    target(
        "username",
        names::username,
        &["{{", "}}", ".RoleName", "random 20", "| truncate 8"],
        20_000,
    ),
];

/// The input as text, when it is text.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// The input as two texts, parted by the first line break.
fn two(input: &[u8]) -> Option<(&str, &str)> {
    text(input)?.split_once('\n')
}
