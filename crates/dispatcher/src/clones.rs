//! Notices two machines that use one node's certificate, a copied disk for example.
//!
//! Each of them takes the session away from the other, again and again. One change of place is
//! nothing: a machine moves to another address. Going back to where the node was before, while the
//! session from the other place was open, is two machines.

use std::fmt;

/// Characters of a host name that are shown.
const HOSTNAME_CHARS_MAX: usize = 64;

/// Where a registration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    hostname: String,
    addr: String,
}

impl Place {
    pub(crate) fn new(hostname: &str, addr: &str) -> Self {
        Self {
            hostname: hostname.chars().take(HOSTNAME_CHARS_MAX).collect(),
            addr: addr.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hostname = if self.hostname.is_empty() {
            "a machine"
        } else {
            &self.hostname
        };
        match &*self.addr {
            "" => f.write_str(hostname),
            addr => write!(f, "{hostname} at {addr}"),
        }
    }
}

/// The places of a node's last registrations.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    here: Place,
    /// From where the session was taken away that was open before.
    before: Option<Place>,
    warning: Option<String>,
}

impl Places {
    /// The first registration.
    pub(crate) fn first(here: Place) -> Self {
        Self {
            here,
            before: None,
            warning: None,
        }
    }

    /// The next one; `was_open` tells whether the session before was still in use.
    pub(crate) fn next(&self, here: Place, was_open: bool) -> Self {
        if here == self.here || !was_open {
            return Self::first(here);
        }
        let warning = match &self.before {
            Some(before) if *before == here => Some(words(&here, &self.here)),
            _ => self.warning.clone(),
        };
        Self {
            before: Some(self.here.clone()),
            warning,
            here,
        }
    }

    /// That there are two machines, if there are.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn words(here: &Place, there: &Place) -> String {
    // The same two machines in the same order, so that the text does not change each time.
    let (first, second) = if here.to_string() < there.to_string() {
        (here, there)
    } else {
        (there, here)
    };
    format!(
        "two machines use this node's certificate, {first} and {second}: one is a copy of the \
         other; stop one, remove its state directory, and let it join with a token"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads registrations as `place[!]`, where `!` says that the session before was in use.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut places: Option<Places> = None;
        let mut warned = String::new();
        for word in text.split(' ') {
            let here = Place::new(word.trim_end_matches('!'), "10.0.0.1");
            let next = match &places {
                None => Places::first(here),
                Some(places) => places.next(here, word.ends_with('!')),
            };
            warned.push(if next.warning().is_some() { 'w' } else { '.' });
            places = Some(next);
        }
        assert_eq!(warned, expected, "{text}");
    }

    #[test]
    fn two_machines_are_noticed_when_the_first_comes_back() {
        check("a", ".");
        check("a b!", "..");
        check("a b! a!", "..w");
        check("a b! a! b! a!", "..www");
        // A third one does not hide the others.
        check("a b! a! c! a!", "..www");
    }

    #[test]
    fn one_machine_that_moves_or_comes_back_is_not_two() {
        check("a a! a! a!", "....");
        check("a b a b", "....");
        check("a b! b! a!", "....");
        check("a b! c! d!", "....");
    }

    #[test]
    fn the_warning_goes_when_one_machine_is_left() {
        check("a b! a! a", "..w.");
        check("a b! a! a!", "..w.");
    }

    #[test]
    fn the_words_are_the_same_from_both_sides() {
        let (a, b) = (Place::new("a", "10.0.0.1"), Place::new("b", ""));
        assert_eq!(words(&a, &b), words(&b, &a));
        assert!(
            words(&a, &b).contains("a at 10.0.0.1 and b:"),
            "{}",
            words(&a, &b)
        );
        let long = Place::new(&"x".repeat(1_000), "");
        assert_eq!(long.to_string().len(), HOSTNAME_CHARS_MAX);
        assert_eq!(Place::new("", "").to_string(), "a machine");
    }
}
