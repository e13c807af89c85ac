//! Texts that a user writes or edits: an entry of the inventory, an ssh destination, a fingerprint, the list of
//! authorized keys.
#![no_main]

use hop::config::enrolment::Destination;
use hop::config::inventory::Entry;
use hop_proto::identity::Fingerprint;
use hopd::access::authorized_keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(entry) = toml::from_str::<Entry>(text) {
        let again = toml::to_string(&entry).map(|text| toml::from_str(&text));
        assert_eq!(again, Ok(Ok(entry)));
    }
    if let Ok(destination) = Destination::parse(text) {
        // For ssh, the destination is a host, and not an option.
        assert!(!destination.host.is_empty() && !destination.host.starts_with('-'), "{destination:?}");
        assert_ne!(destination.port, Some(0));
    }
    let (keys, broken) = authorized_keys::parse(text.as_bytes());
    assert!(keys.len() + broken.len() <= text.split('\n').count());
    for key in keys {
        // A name is for the log, and a key that is written to the list is read back unchanged.
        assert!(!key.name.chars().any(char::is_control), "{key:?}");
        let (again, _) = authorized_keys::parse(format!("{} {}", key.fingerprint, key.name).as_bytes());
        assert_eq!(again[0].fingerprint, key.fingerprint);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert!(fingerprint.to_string().eq_ignore_ascii_case(text));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
});
