//! `hopd --self-test`: checks for known defects of toolchains and kernels on MIPS.
//!
//! Each check has failed on some router or with some toolchain. The checks compare values and CPU time, so a busy
//! router passes them; the wall clock limits only the wait for random numbers.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use hop_cipher::Key;
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ring::{agreement, digest};
use tokio::time::timeout;

use crate::system::runtime;

type Check = Result<(), String>;

/// Runs all checks, with files in `directory` (created and removed again), and prints a line for each. Success if all
/// pass.
pub fn run(directory: &Path) -> ExitCode {
    let checks: [(&str, &dyn Fn() -> Check); 12] = [
        ("64-bit shifts and products", &wide_integers),
        ("memory is copied and filled", &memory),
        ("atomics between threads", &atomics),
        ("files beyond 4 GiB", &|| in_file(directory, large_file)),
        ("file times", &|| in_file(directory, file_times)),
        ("threads that wait sleep", &sleeping_threads),
        ("an event loop with a clock", &event_loop),
        ("random numbers come in time", &random_numbers),
        ("SHA-256 and HKDF (FIPS 180-4, RFC 5869)", &hashes),
        ("ChaCha20-Poly1305 (RFC 8439)", &chacha20_poly1305),
        ("Ed25519 (RFC 8032)", &ed25519),
        ("X25519 between two fresh keys", &x25519),
    ];
    let mut passed = 0;
    for (name, check) in &checks {
        match check() {
            Ok(()) => {
                passed += 1;
                println!("ok      {name}");
            }
            Err(why) => println!("FAILED  {name}: {why}"),
        }
    }
    println!("{passed} of {} checks passed", checks.len());
    if passed == checks.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn expect<T: PartialEq>(what: &str, actual: T, expected: T) -> Check {
    if actual == expected { Ok(()) } else { Err(format!("{what} is wrong")) }
}

/// 32-bit MIPS has no 64-bit shift: the compiler calls its own library for it.
fn wide_integers() -> Check {
    let x = black_box(0x0123_4567_89ab_cdef_u64);
    expect("x << 4", x << black_box(4), 0x1234_5678_9abc_def0)?;
    expect("x << 36", x << black_box(36), 0x9abc_def0_0000_0000)?;
    expect("x >> 36", x >> black_box(36), 0x0000_0000_0012_3456)?;
    expect("-x >> 33", (x as i64).wrapping_neg() >> black_box(33), -0x0091_a2b4)?;
    expect("x * x", x.wrapping_mul(x), 0xdca5_e208_90f2_a521)?;
    expect("x / 1000003", x / black_box(1_000_003), 81_985_283_260)?;
    expect("bytes", black_box(0x0102_0304_u32).to_be_bytes(), [1, 2, 3, 4])
}

/// Checks the memory functions, which on MIPS are zig's, except `memcpy`: every alignment and every length up to two
/// rounds of their loops, overlapping blocks, and no byte written outside the target. Then grows a block through many
/// sizes.
fn memory() -> Check {
    const LONGEST: usize = 72;
    const SIZE: usize = LONGEST + 16;
    let pattern: [u8; SIZE] = std::array::from_fn(|i| i as u8 + 1);
    // Compares byte by byte, without the functions under test.
    let expected = |from: &[u8; SIZE], to: &[u8; SIZE], source: usize, target: usize, length: usize| {
        (0..SIZE).all(|i| match i.checked_sub(target) {
            Some(offset) if offset < length => to[i] == from[source + offset],
            _ => to[i] == from[i],
        })
    };
    for length in 0..=LONGEST {
        for (source, target) in (0..16).map(|i| (i / 4 + 4, i % 4 + 4)) {
            let (mut copied, mut moved, mut filled) = (pattern, pattern, pattern);
            // Hides the values from the compiler, so that it calls the functions instead of computing the result.
            let (source, target, length) = (black_box(source), black_box(target), black_box(length));
            copied[target..target + length].copy_from_slice(&pattern[source..source + length]);
            moved.copy_within(source..source + length, target);
            filled[target..target + length].fill(black_box(0xa5));
            let is_filled = (0..SIZE)
                .all(|i| filled[i] == if (target..target + length).contains(&i) { 0xa5 } else { pattern[i] });
            if !expected(&pattern, &copied, source, target, length)
                || !expected(&pattern, &moved, source, target, length)
                || !is_filled
            {
                return Err(format!("{length} bytes from {source} to {target}"));
            }
        }
    }
    let mut grown = Vec::new();
    for length in [1, 8, 9, 56, 57, 5_000, 32_000, 33_000, 200_000, 400_000] {
        grown.reserve_exact(length - grown.len());
        while grown.len() < length {
            grown.push(grown.len() as u8);
        }
    }
    grown.truncate(40_000);
    grown.shrink_to_fit();
    let is_right = grown.iter().enumerate().all(|(i, byte)| *byte == i as u8);
    expect("what has grown", is_right && grown.len() == 40_000, true)
}

fn atomics() -> Check {
    const ROUNDS: usize = 10_000;
    let (narrow, wide) = (AtomicU32::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    narrow.fetch_add(1, Ordering::Relaxed);
                    let mut seen = wide.load(Ordering::Relaxed);
                    while let Err(now) =
                        wide.compare_exchange_weak(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed)
                    {
                        seen = now;
                    }
                }
            });
        }
    });
    expect("the count by addition", narrow.into_inner() as usize, 4 * ROUNDS)?;
    expect("the count by exchange", wide.into_inner(), 4 * ROUNDS)
}

fn in_file(directory: &Path, check: fn(&mut File) -> std::io::Result<Check>) -> Check {
    let made = !directory.exists();
    fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let path = directory.join(format!("self-test-{}", std::process::id()));
    let result = File::create_new(&path).and_then(|mut file| check(&mut file));
    // Fails if the file could not be created, and then there is nothing to remove.
    let _ = fs::remove_file(&path);
    if made {
        let _ = fs::remove_dir(directory);
    }
    result.map_err(|error| format!("{}: {error}", path.display()))?
}

/// A sparse file, which takes no space: file sizes have 64 bits in the kernel, and must have 64 in the C library too.
fn large_file(file: &mut File) -> std::io::Result<Check> {
    const SIZE: u64 = (5 << 30) + 7;
    file.set_len(SIZE)?;
    Ok(expect("the size", file.metadata()?.len(), SIZE).and(expect(
        "the end",
        file.seek(SeekFrom::End(0))?,
        SIZE,
    )))
}

fn file_times(file: &mut File) -> std::io::Result<Check> {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    file.set_modified(time)?;
    if let Err(why) = expect("the time", file.metadata()?.modified()?, time) {
        return Ok(Err(why));
    }
    file.write_all(b"now")?;
    let age = SystemTime::now().duration_since(file.metadata()?.modified()?).unwrap_or_default();
    Ok(if age < Duration::from_secs(60) {
        Ok(())
    } else {
        Err(format!("a new file is {} s old", age.as_secs()))
    })
}

/// A kernel without the 32-bit time calls answers futex with ENOSYS, and a thread that should wait spins instead.
fn sleeping_threads() -> Check {
    const WAIT: Duration = Duration::from_millis(300);
    let before = cpu_time();
    let (lock, never) = (Mutex::new(()), Condvar::new());
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    drop(never.wait_timeout_while(guard, WAIT, |()| true));
    let used = cpu_time() - before;
    if used < WAIT / 2 {
        Ok(())
    } else {
        Err(format!("waiting {} ms used {} ms of CPU", WAIT.as_millis() as u64, used.as_millis() as u64))
    }
}

/// epoll, eventfd and pipes for signals: a 2.6.24 kernel lacks them.
fn event_loop() -> Check {
    const TICK: Duration = Duration::from_millis(10);
    let mut ticks = false;
    let ran =
        runtime::run(pin!(async { ticks = timeout(TICK, std::future::pending::<()>()).await.is_err() }));
    ran.map_err(|error| error.to_string())?;
    if ticks { Ok(()) } else { Err("the clock does not tick".to_owned()) }
}

/// A router that has just booted may not have any random numbers yet, and then nobody can connect. On a kernel before
/// 3.17 they come from /dev/urandom.
fn random_numbers() -> Check {
    // The only limit on wall-clock time: a machine that had just booted took 3 s.
    const LIMIT: Duration = Duration::from_secs(30);
    let shared = Arc::new((Mutex::new(None), Condvar::new()));
    let (place, came) = &*shared;
    let thread = shared.clone();
    thread::spawn(move || {
        let mut bytes = [0; 32];
        let filled = SystemRandom::new().fill(&mut bytes).is_ok() && bytes != [0; 32];
        *thread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(filled);
        thread.1.notify_one();
    });
    let guard = place.lock().unwrap_or_else(PoisonError::into_inner);
    let (filled, _) = came
        .wait_timeout_while(guard, LIMIT, |filled| filled.is_none())
        .unwrap_or_else(PoisonError::into_inner);
    match *filled {
        Some(true) => Ok(()),
        Some(false) => Err("the system gives none".to_owned()),
        None => Err(format!("none came within {} s", LIMIT.as_secs())),
    }
}

/// CPU time of this thread alone, so that other threads, such as those of tests, do not count as spinning.
///
/// Calls libc, not rustix: rustix assumes that musl's `timespec` has 64-bit fields on MIPS, where the symbols of that
/// name still have 32-bit ones (musl's time64 notes). No call of rustix that takes a time may be used here.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value of the type that clock_gettime(2) names.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn bytes<const N: usize>(hexadecimal: &str) -> [u8; N] {
    std::array::from_fn(|i| {
        hexadecimal
            .get(2 * i..2 * i + 2)
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or_default()
    })
}

fn refused(_: ring::error::Unspecified) -> String {
    "the library refused".to_owned()
}

fn hashes() -> Check {
    expect(
        "SHA-256 of abc",
        digest::digest(&digest::SHA256, b"abc").as_ref(),
        &bytes::<32>("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    )?;
    // RFC 5869, appendix A.1.
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &bytes::<13>("000102030405060708090a0b0c"));
    let key = salt.extract(&[0x0b; 22]);
    let info = bytes::<10>("f0f1f2f3f4f5f6f7f8f9");
    let mut output = [0; 32];
    key.expand(&[&info], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut output)).map_err(refused)?;
    expect("HKDF", output, bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"))
}

/// The example of RFC 8439, section 2.8.2, and a ciphertext with a wrong tag, which must not open. `tests/vectors` has
/// all of Wycheproof's vectors.
fn chacha20_poly1305() -> Check {
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
    let (key, nonce) = (Key::new(&key), bytes("070000004041424344454647"));
    let plain =
        *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                      sunscreen would be it.";
    let aad = bytes::<12>("50515253c0c1c2c3c4c5c6c7");
    let mut text = plain;
    let mut tag = key.seal(&nonce, &aad, &mut text).ok_or("the library refused")?;
    expect("the ciphertext", text.first_chunk::<16>(), Some(&bytes("d31a8d34648e60db7b86afbc53ef7ec2")))?;
    expect("the tag", tag, bytes("1ae10b594f09e26a7e902ecbd0600691"))?;
    let sealed = text;
    expect("what was opened", key.open(&nonce, &aad, &mut text, &tag) && text == plain, true)?;
    tag[15] ^= 0x80;
    text = sealed;
    expect("what was changed", key.open(&nonce, &aad, &mut text, &tag) || text != sealed, false)
}

/// RFC 8032, section 7.1, test 2.
fn ed25519() -> Check {
    let seed: [u8; 32] = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
    let public: [u8; 32] = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    expect("the public key", pair.public_key().as_ref(), &public)?;
    let signature: [u8; 64] = bytes(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    expect("the signature", pair.sign(b"\x72").as_ref(), &signature)?;
    UnparsedPublicKey::new(&ED25519, &public).verify(b"\x72", &signature).map_err(refused)?;
    match UnparsedPublicKey::new(&ED25519, &public).verify(b"\x73", &signature) {
        Ok(()) => Err("a signature of something else is accepted".to_owned()),
        Err(_) => Ok(()),
    }
}

/// Two fresh keys must agree on a secret that is not zero. There is no test vector, because ring accepts no private key
/// from its caller.
fn x25519() -> Check {
    // Keys wait for random numbers for ever.
    random_numbers()?;
    let random = SystemRandom::new();
    let fresh = || agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random).map_err(refused);
    let (ours, theirs) = (fresh()?, fresh()?);
    let public = |key: &agreement::EphemeralPrivateKey| key.compute_public_key().map_err(refused);
    let (our_public, their_public) = (public(&ours)?, public(&theirs)?);
    let agree = |key, public: &agreement::PublicKey| {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public.as_ref());
        agreement::agree_ephemeral(key, &peer, <[u8]>::to_vec).map_err(refused)
    };
    let (one, other) = (agree(ours, &their_public)?, agree(theirs, &our_public)?);
    expect("the secret", &one, &other)?;
    if one.iter().all(|byte| *byte == 0) { Err("the secret is zero".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test_passes_here() {
        let directory = std::env::temp_dir();
        assert_eq!(run(&directory), ExitCode::SUCCESS);
    }

    #[test]
    fn unequal_results_fail_check() {
        assert!(expect("one", 1, 2).is_err());
    }
}
