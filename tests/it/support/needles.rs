//! A search of bytes for known texts, in every form in which they could lie around.

use std::collections::BTreeSet;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};

/// Shorter texts are found by chance.
const TEXT_BYTES_MIN: usize = 8;
/// What a form can begin with: two bytes.
const STARTS: usize = 1 << 16;

const BASE64_FORMS: [&str; 3] = ["base64", "base64 behind 1 byte", "base64 behind 2 bytes"];
const BASE64URL_FORMS: [&str; 3] =
    ["base64url", "base64url behind 1 byte", "base64url behind 2 bytes"];

/// One text that was found, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The name that the text was given.
    pub what: String,
    /// How it was written.
    pub form: &'static str,
}

struct Form {
    what: usize,
    name: &'static str,
    bytes: Vec<u8>,
}

/// Texts to look for.
pub struct Needles {
    names: Vec<String>,
    forms: Vec<Form>,
    /// The forms that begin with two bytes, by these.
    starts: Vec<Vec<usize>>,
}

impl Needles {
    /// None yet.
    pub fn new() -> Self {
        Self { names: Vec::new(), forms: Vec::new(), starts: vec![Vec::new(); STARTS] }
    }

    /// Looks for `text` too, and calls it `name`.
    pub fn add(&mut self, name: &str, text: &[u8]) {
        assert!(text.len() >= TEXT_BYTES_MIN, "{name} is too short to be looked for");
        let what = self.names.len();
        self.names.push(name.to_owned());
        self.form(what, "raw", text.to_vec());
        self.form(what, "reversed", text.iter().rev().copied().collect());
        self.form(what, "hex", HEXLOWER.encode(text).into_bytes());
        self.form(what, "HEX", HEXUPPER.encode(text).into_bytes());
        // Without the outermost zero, which comes behind in one byte order and before in the other.
        let mut wide: Vec<u8> = text.iter().flat_map(|byte| [*byte, 0]).collect();
        wide.pop();
        self.form(what, "UTF-16", wide);
        for (encoding, names) in
            [(&BASE64_NOPAD, BASE64_FORMS), (&BASE64URL_NOPAD, BASE64URL_FORMS)]
        {
            for (before, name) in names.into_iter().enumerate() {
                self.form(what, name, base64_behind(encoding, before, text));
            }
        }
    }

    fn form(&mut self, what: usize, name: &'static str, bytes: Vec<u8>) {
        let start = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let same =
            |known: &&usize| self.forms[**known].what == what && self.forms[**known].bytes == bytes;
        if self.starts[start].iter().find(same).is_none() {
            self.starts[start].push(self.forms.len());
            self.forms.push(Form { what, name, bytes });
        }
    }

    /// Which of them are in `bytes`.
    pub fn found_in(&self, bytes: &[u8]) -> BTreeSet<Hit> {
        let mut found = BTreeSet::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            for form in &self.starts[usize::from(pair[0]) << 8 | usize::from(pair[1])] {
                let form = &self.forms[*form];
                if bytes[at..].starts_with(&form.bytes) {
                    found.insert(Hit { what: self.names[form.what].clone(), form: form.name });
                }
            }
        }
        found
    }
}

/// The characters that are the same whatever stands around `text`, when so many bytes (modulo
/// three) come before it.
fn base64_behind(encoding: &Encoding, before: usize, text: &[u8]) -> Vec<u8> {
    let whole = [vec![0; before], text.to_vec()].concat();
    let encoded = encoding.encode(&whole).into_bytes();
    let (from, to) = ((before * 8).div_ceil(6), whole.len() * 8 / 6);
    encoded[from..to].to_vec()
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL};

    use super::*;

    #[test]
    fn every_form_is_found_where_it_is_planted() {
        // One whose base64 tells the two alphabets apart.
        let text = "canary~~~???>>>canary";
        let mut needles = Needles::new();
        needles.add("canary", text.as_bytes());
        let mut planted: Vec<(&str, Vec<u8>)> = vec![
            ("raw", text.into()),
            ("reversed", text.chars().rev().collect::<String>().into()),
            ("hex", text.bytes().flat_map(|b| format!("{b:02x}").into_bytes()).collect()),
            ("HEX", text.bytes().flat_map(|b| format!("{b:02X}").into_bytes()).collect()),
            ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("UTF-16", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ];
        for behind in 0..3 {
            for after in 0..3 {
                let whole = format!("{}{text}{}", &"abc"[..behind], &"xyz"[..after]);
                let plain = BASE64.encode(whole.as_bytes());
                planted.push((BASE64_FORMS[behind], plain.into_bytes()));
                let url = BASE64URL.encode(whole.as_bytes());
                planted.push((BASE64URL_FORMS[behind], url.into_bytes()));
            }
        }
        for (form, bytes) in planted {
            let place = [b"....".as_slice(), &bytes, b"...."].concat();
            let found: Vec<_> = needles.found_in(&place).into_iter().collect();
            assert_eq!(found, [Hit { what: "canary".into(), form }], "{form}");
            let most = &bytes[..bytes.len() / 2];
            assert!(needles.found_in(most).is_empty(), "half of {form}");
        }
        assert!(needles.found_in(b"").is_empty() && needles.found_in(b"c").is_empty());
    }
}
