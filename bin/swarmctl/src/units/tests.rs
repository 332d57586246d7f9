use super::*;

#[test]
fn durations_are_read_like_go_writes_them() {
    for (text, millis) in [
        ("0", 0),
        ("0s", 0),
        ("500ms", 500),
        ("1.5s", 1_500),
        (".5s", 500),
        ("1h0m0s", 3_600_000),
        ("2160h", 7_776_000_000),
        ("1m30s", 90_000),
        ("1000us", 1),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for bad in [
        "", "5", "s", "-5s", "5x", "5 s", "1..5s", ".s", "9999999h", "1h5",
    ] {
        assert!(
            duration(bad).unwrap_err().contains(&format!("{bad:?}")),
            "{bad}"
        );
    }
}

#[test]
fn sizes_are_binary() {
    for (text, size) in [
        ("0", 0),
        ("1", 1),
        ("1b", 1),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("1.5g", 3 << 29),
        ("64KiB", 64 << 10),
        ("64 kb", 64 << 10),
        ("1t", 1 << 40),
        ("8191p", 8191 << 50),
    ] {
        assert_eq!(bytes(text), Ok(size), "{text}");
    }
    for bad in ["", "m", "-1", "1x", "1kk", "1ib", "8192p", "1.2.3m", "ü"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
}

#[test]
fn cpus_are_exact_to_nine_decimals() {
    for (text, nanos) in [
        ("2", 2_000_000_000),
        ("0.5", 500_000_000),
        ("1/4", 250_000_000),
        ("0.000000001", 1),
        ("0.5000000000", 500_000_000),
    ] {
        assert_eq!(nano_cpus(text), Ok(nanos), "{text}");
    }
    for bad in ["", "0.0000000001", "1/3", "1/0", "-1", "x", "10000000000"] {
        assert!(nano_cpus(bad).is_err(), "{bad}");
    }
}

#[test]
fn ages_are_rounded_for_reading() {
    let now = Timestamp::from_millis(1_000_000_000);
    let age = |seconds: u64| ago(now.saturating_sub(Duration::from_secs(seconds)), now);
    assert_eq!(age(0), "just now");
    assert_eq!(age(1), "1 second ago");
    assert_eq!(age(59), "59 seconds ago");
    assert_eq!(age(60), "1 minute ago");
    assert_eq!(age(3599), "59 minutes ago");
    assert_eq!(age(3600), "1 hour ago");
    assert_eq!(age(172_799), "47 hours ago");
    assert_eq!(age(172_800), "2 days ago");
    // Clocks of machines differ.
    assert_eq!(
        ago(now.saturating_add(Duration::from_secs(9)), now),
        "just now"
    );
}

#[test]
fn sizes_times_and_durations_are_written_for_reading() {
    assert_eq!(show_bytes(1023), "1023 B");
    assert_eq!(show_bytes(1024), "1 KiB");
    assert_eq!(show_bytes(3 << 29), "1.5 GiB");
    assert_eq!(show_cpus(2_500_000_000), "2.5");
    assert_eq!(show_duration(Duration::from_millis(1500)), "1 s");
    assert_eq!(show_duration(Duration::from_millis(15)), "15 ms");
    assert_eq!(show_duration(Duration::from_secs(90)), "1 min 30 s");
    assert_eq!(show_duration(Duration::from_secs(7_776_000)), "90 d");
    assert_eq!(show_duration(Duration::ZERO), "0 s");
    assert_eq!(
        show_time(Timestamp::from_millis(1_500)),
        "1970-01-01T00:00:01Z"
    );
}
