//! The persistent ordered map and set. The type stays private to this crate so that it can be
//! replaced where a profile asks for it.

/// An ordered map that shares structure between versions.
pub(crate) type Map<K, V> = imbl::OrdMap<K, V>;
/// An ordered set that shares structure between versions.
pub(crate) type Set<T> = imbl::OrdSet<T>;
