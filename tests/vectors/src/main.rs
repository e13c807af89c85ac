//! The agents' ChaCha20-Poly1305 against Wycheproof's vectors and the two of RFC 8439.
//!
//! `cargo xtask build` builds this for both kinds of router, with the flags and the profile of the agents, so that it is the same
//! code; the tests run it. Prints how many vectors passed, or each one that did not, and fails then.

use std::process::ExitCode;

use data_encoding::HEXLOWER;
use hop_cipher::{Key, TAG_BYTES};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

/// One message, sealed.
struct Vector {
    name: String,
    key: Vec<u8>,
    nonce: Vec<u8>,
    aad: Vec<u8>,
    plain: Vec<u8>,
    /// Nothing where only the tag is known.
    sealed: Option<Vec<u8>>,
    tag: Vec<u8>,
    /// It is to be opened.
    is_valid: bool,
}

fn main() -> ExitCode {
    let vectors = match vectors() {
        Ok(vectors) => vectors,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let failed: Vec<_> = vectors.iter().filter_map(|vector| Some((vector, check(vector).err()?))).collect();
    for (vector, why) in &failed {
        println!("FAILED  {}: {why}", vector.name);
    }
    println!("{} of {} vectors passed", vectors.len() - failed.len(), vectors.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn vectors() -> Result<Vec<Vector>, Box<dyn std::error::Error>> {
    let mut vectors = rfc_8439()?;
    for group in TestSet::load(TestName::ChaCha20Poly1305)?.test_groups {
        vectors.extend(group.tests.into_iter().map(|test| Vector {
            name: format!("Wycheproof {}, {}", test.tc_id, test.comment),
            key: test.key.to_vec(),
            nonce: test.nonce.to_vec(),
            aad: test.aad.to_vec(),
            plain: test.pt.to_vec(),
            sealed: Some(test.ct.to_vec()),
            tag: test.tag.to_vec(),
            is_valid: test.result == TestResult::Valid,
        }));
    }
    Ok(vectors)
}

/// RFC 8439, section 2.8.2 and appendix A.5.
fn rfc_8439() -> Result<Vec<Vector>, data_encoding::DecodeError> {
    let vector = |name: &str, key: &str, nonce: &str, aad: &str, plain: &str, tag: &str| {
        Ok(Vector {
            name: format!("RFC 8439, {name}"),
            key: HEXLOWER.decode(key.as_bytes())?,
            nonce: HEXLOWER.decode(nonce.as_bytes())?,
            aad: HEXLOWER.decode(aad.as_bytes())?,
            plain: plain.into(),
            sealed: None,
            tag: HEXLOWER.decode(tag.as_bytes())?,
            is_valid: true,
        })
    };
    Ok(vec![
        vector(
            "section 2.8.2",
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen \
             would be it.",
            "1ae10b594f09e26a7e902ecbd0600691",
        )?,
        vector(
            "appendix A.5",
            "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
            "000000000102030405060708",
            "f33388860000000000004e91",
            "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or \
             obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference \
             material or to cite them other than as /\u{201c}work in progress./\u{201d}",
            "eead9d67890cbb22392336fea1851f38",
        )?,
    ])
}

/// Seals the message and opens what the vector has of it.
fn check(vector: &Vector) -> Result<(), &'static str> {
    let [key, nonce] = [vector.key.as_slice(), &vector.nonce];
    let tag: Result<&[u8; TAG_BYTES], _> = vector.tag.as_slice().try_into();
    let (key, nonce, tag) = match (key.try_into(), nonce.try_into(), tag) {
        (Ok(key), Ok(nonce), Ok(tag)) => (Key::new(key), nonce, tag),
        // Wycheproof has nonces of other lengths, which are nothing for RFC 8439.
        _ if !vector.is_valid => return Ok(()),
        _ => return Err("a length is wrong"),
    };
    let mut sealed = vector.plain.clone();
    let made = key.seal(nonce, &vector.aad, &mut sealed).ok_or("it is not sealed")?;
    if vector.is_valid && vector.sealed.as_ref().is_some_and(|expected| *expected != sealed) {
        return Err("its ciphertext is another");
    }
    if vector.is_valid && made != *tag {
        return Err("its tag is another");
    }
    let mut text = vector.sealed.clone().unwrap_or(sealed);
    match key.open(nonce, &vector.aad, &mut text, tag) {
        is_opened if is_opened != vector.is_valid => Err("it is opened and should not be, or the reverse"),
        true if text != vector.plain => Err("it is opened to something else"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_vector_passes() {
        let vectors = vectors().unwrap();
        assert!(vectors.len() > 300, "{}", vectors.len());
        for vector in &vectors {
            assert_eq!(check(vector), Ok(()), "{}", vector.name);
        }
    }

    #[test]
    fn changed_vector_fails() {
        for index in 0..2 {
            for field in 0..4 {
                let mut vector = vectors().unwrap().remove(index);
                match field {
                    0 => vector.key[0] ^= 1,
                    1 => vector.plain[0] ^= 1,
                    2 => vector.tag[15] ^= 0x80,
                    _ => vector.is_valid = false,
                }
                assert!(check(&vector).is_err(), "{}, field {field}", vector.name);
            }
        }
    }
}
