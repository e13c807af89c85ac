//! ChaCha20-Poly1305 (RFC 8439), by which the agent's TLS seals and opens every byte.
//!
//! A router's CPU has no instructions for any cipher, and this is what it does most. ring's portable code takes 39
//! instructions a byte on MIPS32r2, the crates chacha20 and poly1305 33, this 23: ChaCha20 with its state in registers, and
//! Poly1305 with its sums in the multiplier (`cipher.s`). What must stay true: it gives what ring gives; nothing that is
//! secret decides a branch or an address; what is not authentic is not decrypted.

use std::hint::black_box;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 as RINGS;
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// Bytes that prove that a message is from who has the key.
pub const TAG_BYTES: usize = 16;

/// Bytes of ChaCha20's key stream that are made at once.
const STREAM_BLOCK: usize = 64;
/// Bytes that Poly1305 takes at once.
const TAG_BLOCK: usize = 16;

/// ring's cipher suite, with this cipher in it.
pub static CIPHER_SUITE: SupportedCipherSuite = {
    let SupportedCipherSuite::Tls13(rings) = RINGS;
    SupportedCipherSuite::Tls13(&Tls13CipherSuite {
        common: CipherSuiteCommon { ..rings.common },
        hkdf_provider: rings.hkdf_provider,
        aead_alg: &Algorithm,
        quic: None,
    })
};

/// What TLS makes a key's two directions of.
struct Algorithm;

impl Tls13AeadAlgorithm for Algorithm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Direction { key: Key::new(key.as_ref()), iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Direction { key: Key::new(key.as_ref()), iv })
    }

    fn key_len(&self) -> usize {
        KEY_BYTES
    }

    /// For who takes TLS over to elsewhere. Nobody does.
    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// What comes, or what goes.
struct Direction {
    key: Key,
    iv: Iv,
}

impl MessageEncrypter for Direction {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let nonce = Nonce::new(&self.iv, number).0;
        let tag = self.key.seal(&nonce, &make_tls13_aad(length), payload.as_mut());
        payload.extend_from_slice(&tag);
        // The version is that of RFC 8446, section 5.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        // The type of what is in it stands behind it.
        length + 1 + TAG_BYTES
    }
}

impl MessageDecrypter for Direction {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        number: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let aad = make_tls13_aad(payload.len());
        let nonce = Nonce::new(&self.iv, number).0;
        let (text, tag) = payload.split_last_chunk_mut().ok_or(Error::DecryptError)?;
        if !self.key.open(&nonce, &aad, text, tag) {
            return Err(Error::DecryptError);
        }
        let length = text.len();
        payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}

/// A key for both algorithms.
pub struct Key([u32; KEY_BYTES / 4]);

impl Key {
    /// Takes the first 32 bytes; there are no fewer.
    pub fn new(key: &[u8]) -> Self {
        let (words, _) = key.as_chunks();
        Self(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
    }

    /// Encrypts `text` in its place. Gives the tag of it and of `aad`.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut stream = Stream::new(self, nonce);
        let authenticator = stream.authenticator();
        stream.apply(text);
        authenticator.tag(aad, text)
    }

    /// Decrypts `text` in its place, if `tag` is the one of it and of `aad`.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let mut stream = Stream::new(self, nonce);
        let expected = stream.authenticator().tag(aad, text);
        // All bytes are looked at, whichever is the first that differs.
        let difference = expected.iter().zip(tag).fold(0, |all, (one, other)| black_box(all | (one ^ other)));
        let is_authentic = difference == 0;
        if is_authentic {
            stream.apply(text);
        }
        is_authentic
    }
}

/// ChaCha20's key stream, from its first block on.
struct Stream([u32; STREAM_BLOCK / 4]);

impl Stream {
    fn new(key: &Key, nonce: &[u8; NONCE_BYTES]) -> Self {
        let mut state = [0; STREAM_BLOCK / 4];
        for (word, bytes) in state.iter_mut().zip(b"expand 32-byte k".as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        state[4..12].copy_from_slice(&key.0);
        for (word, bytes) in state[13..].iter_mut().zip(nonce.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(state)
    }

    /// The key of the tag is the first block of the stream (RFC 8439, section 2.6).
    fn authenticator(&mut self) -> Authenticator {
        let mut block = [[0; STREAM_BLOCK]];
        self.apply_to_blocks(&mut block);
        Authenticator::new(block[0].first_chunk().unwrap_or(&[0; KEY_BYTES]))
    }

    fn apply(&mut self, text: &mut [u8]) {
        let (blocks, rest) = text.as_chunks_mut();
        self.apply_to_blocks(blocks);
        let mut last = [[0; STREAM_BLOCK]];
        last[0][..rest.len()].copy_from_slice(rest);
        self.apply_to_blocks(&mut last);
        rest.copy_from_slice(&last[0][..rest.len()]);
    }

    /// Names, not an array of words: they are to stay in registers.
    #[cfg_attr(target_arch = "mips", optimize(speed))]
    #[inline(never)]
    fn apply_to_blocks(&mut self, blocks: &mut [[u8; STREAM_BLOCK]]) {
        let Self(state) = self;
        for block in blocks {
            let [mut x0, mut x1, mut x2, mut x3, mut x4, mut x5, mut x6, mut x7, ..] = *state;
            let [.., mut x8, mut x9, mut x10, mut x11, mut x12, mut x13, mut x14, mut x15] = *state;
            macro_rules! quarter_round {
                ($a:ident $b:ident $c:ident $d:ident) => {
                    $a = $a.wrapping_add($b);
                    $d = ($d ^ $a).rotate_left(16);
                    $c = $c.wrapping_add($d);
                    $b = ($b ^ $c).rotate_left(12);
                    $a = $a.wrapping_add($b);
                    $d = ($d ^ $a).rotate_left(8);
                    $c = $c.wrapping_add($d);
                    $b = ($b ^ $c).rotate_left(7);
                };
            }
            for _ in 0..10 {
                quarter_round!(x0 x4 x8 x12);
                quarter_round!(x1 x5 x9 x13);
                quarter_round!(x2 x6 x10 x14);
                quarter_round!(x3 x7 x11 x15);
                quarter_round!(x0 x5 x10 x15);
                quarter_round!(x1 x6 x11 x12);
                quarter_round!(x2 x7 x8 x13);
                quarter_round!(x3 x4 x9 x14);
            }
            let (words, _) = block.as_chunks_mut();
            macro_rules! apply {
                ($($index:literal $x:ident),*) => {$(
                    let key = $x.wrapping_add(state[$index]);
                    words[$index] = (u32::from_le_bytes(words[$index]) ^ key).to_le_bytes();
                )*};
            }
            apply!(0 x0, 1 x1, 2 x2, 3 x3, 4 x4, 5 x5, 6 x6, 7 x7);
            apply!(8 x8, 9 x9, 10 x10, 11 x11, 12 x12, 13 x13, 14 x14, 15 x15);
            // A record is far from 2^32 blocks.
            state[12] = state[12].wrapping_add(1);
        }
    }
}

/// Poly1305: a number below 2^130 - 5 to which each block is added, and which is then multiplied.
pub struct Authenticator {
    /// The number in five words, least first, and what is still to be added to the first of them.
    number: [u32; 6],
    /// The factor in four words, and 5/4 of the last three: what comes out above 2^130 comes back five times.
    factor: [u32; 7],
    /// What is added to the last number.
    mask: [u32; 4],
}

impl Authenticator {
    /// For one message: the first half of the key is the factor, the second the mask.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let (words, _) = key.as_chunks();
        let word = |i: usize| u32::from_le_bytes(words[i]);
        let [r0, r1, r2, r3] =
            [word(0) & 0x0fff_ffff, word(1) & 0x0fff_fffc, word(2) & 0x0fff_fffc, word(3) & 0x0fff_fffc];
        let factor = [r0, r1, r2, r3, r1 + (r1 >> 2), r2 + (r2 >> 2), r3 + (r3 >> 2)];
        Self { number: [0; 6], factor, mask: [word(4), word(5), word(6), word(7)] }
    }

    /// The tag of a message (RFC 8439, section 2.8).
    fn tag(mut self, aad: &[u8], text: &[u8]) -> [u8; TAG_BYTES] {
        self.take(aad);
        self.take(text);
        let mut lengths = [0; TAG_BLOCK];
        lengths[..8].copy_from_slice(&(aad.len() as u64).to_le_bytes());
        lengths[8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
        self.take(&lengths);
        self.finish()
    }

    /// Takes bytes, and zeros up to the end of a block.
    pub fn take(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks();
        self.take_blocks(blocks);
        if !rest.is_empty() {
            let mut last = [[0; TAG_BLOCK]];
            last[0][..rest.len()].copy_from_slice(rest);
            self.take_blocks(&last);
        }
    }

    fn take_blocks(&mut self, blocks: &[[u8; TAG_BLOCK]]) {
        if !blocks.is_empty() {
            take_blocks(&mut self.number, &self.factor, blocks);
        }
    }

    /// The number modulo 2^130 - 5, and the mask, modulo 2^128. For speed: a line of output is a message, and in as few bytes
    /// of code as may be this took half of what its key stream takes.
    #[cfg_attr(target_arch = "mips", optimize(speed))]
    pub fn finish(self) -> [u8; TAG_BYTES] {
        let [h0, h1, h2, h3, h4, rest] = self.number;
        let (h, h4) = add([h0, h1, h2, h3], h4, [rest, 0, 0, 0]);
        let (h, h4) = add(h, h4 & 3, [(h4 >> 2) * 5, 0, 0, 0]);
        // With 5 more it reaches 2^130 if it is not below the modulus; what is then left of it is the remainder.
        let (reduced, above) = add(h, h4, [5, 0, 0, 0]);
        let is_above = black_box((above >> 2).wrapping_neg());
        let h = std::array::from_fn(|i| h[i] ^ ((h[i] ^ reduced[i]) & is_above));
        let (words, _) = add(h, 0, self.mask);
        let mut tag = [0; TAG_BYTES];
        for (bytes, word) in tag.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        tag
    }
}

/// Adds to a number of five words one of four.
#[inline(always)]
fn add(mut number: [u32; 4], most: u32, other: [u32; 4]) -> ([u32; 4], u32) {
    let mut carry = 0;
    for (word, other) in number.iter_mut().zip(other) {
        let sum = u64::from(*word) + u64::from(other) + carry;
        *word = sum as u32;
        carry = sum >> 32;
    }
    (number, most + carry as u32)
}

#[cfg(target_arch = "mips")]
std::arch::global_asm!(include_str!("cipher.s"), BIG = const cfg!(target_endian = "big") as u32);

#[cfg(target_arch = "mips")]
fn take_blocks(number: &mut [u32; 6], factor: &[u32; 7], blocks: &[[u8; TAG_BLOCK]]) {
    unsafe extern "C" {
        fn hop_poly1305(
            number: *mut [u32; 6],
            factor: *const [u32; 7],
            blocks: *const [u8; TAG_BLOCK],
            count: usize,
        );
    }
    // SAFETY: it reads and writes these arrays as they are, and reads `count` blocks, of which there is one at least.
    unsafe { hop_poly1305(number, factor, blocks.as_ptr(), blocks.len()) }
}

/// The same as `cipher.s`, for machines that need not care.
#[cfg(not(target_arch = "mips"))]
fn take_blocks(number: &mut [u32; 6], factor: &[u32; 7], blocks: &[[u8; TAG_BLOCK]]) {
    let [r0, r1, r2, r3, s1, s2, s3] = factor.map(u64::from);
    for block in blocks {
        let (words, _) = block.as_chunks();
        let [h0, h1, h2, h3, h4, rest] = *number;
        let (h, h4) = add([h0, h1, h2, h3], h4, [rest, 0, 0, 0]);
        let block = std::array::from_fn(|i| u32::from_le_bytes(words[i]));
        let ([h0, h1, h2, h3], h4) = add(h, h4 + 1, block);
        let [h0, h1, h2, h3, h4] = [h0, h1, h2, h3, h4].map(u64::from);
        let d0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
        let d1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + h4 * s1 + (d0 >> 32);
        let d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + h4 * s2 + (d1 >> 32);
        let d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * s3 + (d2 >> 32);
        let d4 = (h4 * r0 + (d3 >> 32)) as u32;
        *number = [d0 as u32, d1 as u32, d2 as u32, d3 as u32, d4 & 3, (d4 >> 2) + (d4 & !3)];
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use ring::rand::{SecureRandom, SystemRandom};

    use super::*;

    pub(crate) fn seal_by_ring(
        key: &[u8; KEY_BYTES],
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).unwrap();
        tag.as_ref().try_into().unwrap()
    }

    fn random<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        SystemRandom::new().fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn messages_of_any_length_are_sealed_as_ring_does_and_opened_again() {
        for _ in 0..2_000 {
            let (key, nonce, aad) = (random(), random(), random::<24>());
            let length = usize::from(u16::from_le_bytes(random())) % 17_000;
            let aad = &aad[..length % aad.len()];
            let mut plain = vec![0; length];
            SystemRandom::new().fill(&mut plain).unwrap();
            let (mut ours, mut rings) = (plain.clone(), plain.clone());
            let tag = Key::new(&key).seal(&nonce, aad, &mut ours);
            assert_eq!(tag, seal_by_ring(&key, &nonce, aad, &mut rings), "{length} bytes");
            assert!(ours == rings, "{length} bytes");
            assert!(Key::new(&key).open(&nonce, aad, &mut ours, &tag));
            assert!(ours == plain, "{length} bytes");
        }
    }

    #[test]
    fn what_was_changed_in_any_bit_is_not_opened() {
        let (key, nonce) = (Key::new(&random::<KEY_BYTES>()), random());
        let mut sealed = *b"a message of two blocks of Poly1305";
        let aad = [1, 2, 3, 4, 5];
        let tag = key.seal(&nonce, &aad, &mut sealed);
        let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
        for bit in 0..8 * (sealed.len() + aad.len() + tag.len()) {
            let (mut changed, mut aad, mut tag) = (sealed, aad, tag);
            match bit / 8 {
                byte if byte < sealed.len() => flip(&mut changed, bit),
                byte if byte < sealed.len() + aad.len() => flip(&mut aad, bit - 8 * sealed.len()),
                _ => flip(&mut tag, bit - 8 * (sealed.len() + aad.len())),
            }
            let before = changed;
            assert!(!key.open(&nonce, &aad, &mut changed, &tag), "bit {bit}");
            assert_eq!(changed, before, "nothing is decrypted");
        }
        assert!(key.open(&nonce, &aad, &mut sealed, &tag));
    }

    #[test]
    fn a_peer_with_rings_cipher_understands_and_is_understood() {
        let SupportedCipherSuite::Tls13(ours) = CIPHER_SUITE;
        let SupportedCipherSuite::Tls13(rings) = RINGS;
        assert_eq!(ours.common.suite, rings.common.suite);
        let (key, iv) = (random(), random());
        for (one, other) in [(ours, rings), (rings, ours)] {
            let mut encrypter = one.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv));
            let mut decrypter = other.aead_alg.decrypter(AeadKey::from(key), Iv::from(iv));
            for number in 0..300 {
                let text = vec![7; number as usize];
                let message = OutboundPlainMessage {
                    typ: ContentType::ApplicationData,
                    version: ProtocolVersion::TLSv1_3,
                    payload: text.as_slice().into(),
                };
                let length = encrypter.encrypted_payload_len(text.len());
                let sealed = encrypter.encrypt(message, number).unwrap();
                let mut payload = sealed.payload.as_ref().to_vec();
                assert_eq!(payload.len(), length);
                let sealed = InboundOpaqueMessage::new(sealed.typ, sealed.version, &mut payload);
                let opened = decrypter.decrypt(sealed, number).unwrap();
                assert_eq!((opened.typ, opened.payload), (ContentType::ApplicationData, &text[..]));
            }
        }
    }
}
