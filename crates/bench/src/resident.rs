//! How much memory and processor time this process took, from the kernel's own books.

/// Bytes of memory that are resident now. Zero where the kernel does not tell.
pub fn bytes() -> u64 {
    // The second field of statm counts pages; Linux on our machines has pages of 4 KiB.
    const PAGE_BYTES: u64 = 4_096;
    field("/proc/self/statm", 1).saturating_mul(PAGE_BYTES)
}

/// Nanoseconds that the main thread spent on a processor. Unlike the clock on the wall it does not
/// count what other processes took.
pub fn cpu_nanos() -> u64 {
    field("/proc/self/schedstat", 0)
}

fn field(path: &str, index: usize) -> u64 {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.split_whitespace().nth(index)?.parse().ok())
        .unwrap_or(0)
}
