//! Memory of this process stays out of core dumps: it holds the keys of the node and of its log.

/// Forbids core dumps of this process, whatever the limits are and wherever the system sends them.
/// With that nobody but root can attach a debugger either. What it starts may dump as ever.
///
/// # Errors
/// What the system said.
pub fn forbid() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_not_dumpable_any_more() {
        forbid().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}
