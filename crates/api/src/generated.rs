//! Mounts the generated files in a module tree that mirrors the protobuf packages.
//!
//! Generated code refers to other packages by relative path, so the tree must not be flattened
//! here; `lib.rs` gives the short names. `include!` keeps rustfmt away from the files, which
//! must stay byte for byte as generated.
#![allow(
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::or_fun_call,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications
)]

pub mod docker {
    pub mod swarmkit {
        pub mod v1 {
            include!("gen/docker.swarmkit.v1.rs");
        }
    }
}

pub mod raftpb {
    include!("gen/raftpb.rs");
}

pub mod swarmkit_rs {
    pub mod v1 {
        include!("gen/swarmkit_rs.v1.rs");
    }
}
