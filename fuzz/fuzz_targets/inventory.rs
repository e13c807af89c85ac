//! What people write, or change by hand: an entry of the inventory, an ssh destination, a fingerprint.
#![no_main]

use hop::inventory::Entry;
use hop::ssh::Destination;
use hop_proto::identity::Fingerprint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(entry) = toml::from_str::<Entry>(text) {
        let again = toml::to_string(&entry).map(|text| toml::from_str(&text));
        assert_eq!(again, Ok(Ok(entry)));
    }
    if let Ok(destination) = Destination::parse(text) {
        // To ssh it is a place, and no option.
        assert!(!destination.host.is_empty() && !destination.host.starts_with('-'), "{destination:?}");
        assert_ne!(destination.port, Some(0));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert!(fingerprint.to_string().eq_ignore_ascii_case(text));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
});
