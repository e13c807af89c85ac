//! ChaCha20-Poly1305 (RFC 8439) for the agent's TLS: the crate `chacha20poly1305`, behind the traits of rustls.
//!
//! A crate of its own, because it is compiled for speed and the rest of the agent for size, and generic code is
//! compiled where it is used. A router's CPU has no instructions for any cipher, and the agent spends most of its CPU
//! time on them: in instructions a byte of a message of 16 KiB on MIPS32r2, the crate alone takes 41.5, with
//! [`ChaCha20ByWord`] 33.4, and ring 38.9.
//!
//! **Invariants:** messages are sealed and opened in place; a message that is not authentic is not decrypted.

use chacha20::ChaCha20;
use chacha20::cipher::consts::{U4, U12, U32, U64};
use chacha20::cipher::inout::InOutBuf;
use chacha20::cipher::{
    IvSizeUser, KeyIvInit, KeySizeUser, OverflowError, SeekNum, StreamCipher, StreamCipherError,
    StreamCipherSeek,
};
use chacha20poly1305::{AeadInOut, ChaChaPoly1305, KeyInit};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 as OF_RING;
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce, which no two messages of a key share.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag, which proves that a message is from a holder of the key.
pub const TAG_BYTES: usize = 16;

/// ring's cipher suite, with this cipher in it.
pub static CIPHER_SUITE: SupportedCipherSuite = {
    let SupportedCipherSuite::Tls13(of_ring) = OF_RING;
    SupportedCipherSuite::Tls13(&Tls13CipherSuite {
        common: CipherSuiteCommon { ..of_ring.common },
        hkdf_provider: of_ring.hkdf_provider,
        aead_alg: &Algorithm,
        quic: None,
    })
};

/// A key.
pub struct Key(ChaChaPoly1305<ChaCha20ByWord, U12>);

impl Key {
    /// Creates a key from its bytes.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(ChaChaPoly1305::new(key.into()))
    }

    /// Encrypts a message in place, and returns its tag. `None` if it is longer than the cipher's key stream, 256 GiB.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], message: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        self.0.encrypt_inout_detached(nonce.into(), aad, message.into()).ok().map(Into::into)
    }

    /// Decrypts a message in place if it is authentic; otherwise leaves it as it is.
    #[must_use]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        message: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        self.0.decrypt_inout_detached(nonce.into(), aad, message.into(), tag.into()).is_ok()
    }
}

/// The crate's ChaCha20, with its key stream applied in words of 32 bits: the crate applies it in bytes, with seven
/// instructions each.
struct ChaCha20ByWord(ChaCha20);

impl KeySizeUser for ChaCha20ByWord {
    type KeySize = U32;
}

impl IvSizeUser for ChaCha20ByWord {
    type IvSize = U12;
}

impl KeyIvInit for ChaCha20ByWord {
    fn new(key: &chacha20::Key, nonce: &chacha20::Nonce) -> Self {
        Self(ChaCha20::new(key, nonce))
    }
}

impl StreamCipher for ChaCha20ByWord {
    fn check_remaining(&self, length: usize) -> Result<(), StreamCipherError> {
        self.0.check_remaining(length)
    }

    fn unchecked_apply_keystream_inout(&mut self, text: InOutBuf<'_, '_, u8>) {
        let mut stream = [0; 64];
        let (blocks, rest) = text.into_chunks::<U64>();
        for block in blocks {
            self.0.unchecked_write_keystream(&mut stream);
            let (words, _) = block.into_buf().into_chunks::<U4>();
            for (mut word, key) in words.into_iter().zip(stream.as_chunks().0) {
                let text = u32::from_ne_bytes((*word.get_in()).into());
                *word.get_out() = (text ^ u32::from_ne_bytes(*key)).to_ne_bytes().into();
            }
        }
        self.0.unchecked_apply_keystream_inout(rest);
    }

    fn unchecked_write_keystream(&mut self, stream: &mut [u8]) {
        self.0.unchecked_write_keystream(stream);
    }
}

impl StreamCipherSeek for ChaCha20ByWord {
    fn try_current_pos<T: SeekNum>(&self) -> Result<T, OverflowError> {
        self.0.try_current_pos()
    }

    fn try_seek<T: SeekNum>(&mut self, position: T) -> Result<(), StreamCipherError> {
        self.0.try_seek(position)
    }
}

/// The algorithm, in the form that rustls needs.
struct Algorithm;

impl Tls13AeadAlgorithm for Algorithm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Direction::new(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Direction::new(&key, iv))
    }

    fn key_len(&self) -> usize {
        KEY_BYTES
    }

    /// For applications that hand the connection over to another implementation of TLS. There are none.
    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// One direction of a connection.
struct Direction {
    key: Key,
    iv: Iv,
}

impl Direction {
    fn new(key: &AeadKey, iv: Iv) -> Self {
        // rustls passes as many bytes as `key_len` says.
        let key = key.as_ref().first_chunk().unwrap_or_else(|| unreachable!("a key of {KEY_BYTES} bytes"));
        Self { key: Key::new(key), iv }
    }
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
        payload.extend_from_slice(&tag.ok_or(Error::EncryptError)?);
        // The version is that of RFC 8446, section 5.2.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        // The content type follows the content.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    use ring::rand::{SecureRandom, SystemRandom};

    use super::*;

    fn seal_by_ring(
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
    fn sealing_matches_ring_at_any_length() {
        for _ in 0..200 {
            let (key, nonce, aad) = (random(), random(), random::<24>());
            let length = usize::from(u16::from_le_bytes(random())) % 17_000;
            let aad = &aad[..length % aad.len()];
            let mut plain = vec![0; length];
            SystemRandom::new().fill(&mut plain).unwrap();
            let (mut ours, mut rings) = (plain.clone(), plain.clone());
            let tag = Key::new(&key).seal(&nonce, aad, &mut ours).unwrap();
            assert_eq!(tag, seal_by_ring(&key, &nonce, aad, &mut rings), "{length} bytes");
            assert!(ours == rings, "{length} bytes");
            assert!(Key::new(&key).open(&nonce, aad, &mut ours, &tag));
            assert!(ours == plain, "{length} bytes");
        }
    }

    #[test]
    fn any_changed_bit_fails_authentication() {
        let (key, nonce) = (Key::new(&random::<KEY_BYTES>()), random());
        let mut sealed = *b"a message of two blocks of Poly1305";
        let aad = [1, 2, 3, 4, 5];
        let tag = key.seal(&nonce, &aad, &mut sealed).unwrap();
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
    fn cipher_interoperates_with_ring() {
        let SupportedCipherSuite::Tls13(ours) = CIPHER_SUITE;
        let SupportedCipherSuite::Tls13(rings) = OF_RING;
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
