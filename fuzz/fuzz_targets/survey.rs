//! A router's description of itself over ssh, before anything of Hop is installed on it.
#![no_main]

use std::path::Path;

use hop::enrolment::survey::Survey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &[u8]| {
    let survey = Survey::parse(said);
    survey.describe();
    let size = 1_860_000;
    if survey.agent_for(|_| size).is_ok() {
        assert!(survey.is_root && survey.memory.least() > size, "{survey:?}");
        let tmp = survey.mount_of(Path::new("/tmp"));
        assert!(tmp.is_none_or(|tmp| tmp.is_in_ram() && !tmp.has("noexec")), "{survey:?}");
    }
    for digest in survey.agents.iter().filter_map(|agent| agent.digest.as_ref()) {
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{survey:?}");
    }
    assert_eq!(survey.check_foreign("desk").is_err(), !survey.foreign.is_empty());
    for mount in &survey.mounts {
        assert!(survey.backing(mount).is_none_or(|flash| !flash.is_in_ram()), "{survey:?}");
    }
});
