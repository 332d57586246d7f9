//! The data keys of the manager's log, in the headers of the node's key file.
//!
//! Owns the seam to the log. The form of the headers is that of `swarm-ca`.

use swarm_ca::keyfile::data_keys::DataKeys;
use swarm_raft_io::keys::{DataKey, KeeperError, KeyKeeper, KeySet};
use zeroize::Zeroizing;

use super::{Certificates, CertificatesError, KeyFile, Seal, nonce, plan, sealed_text};

impl Certificates {
    /// Whether the log has to get another data key, or is in the middle of that.
    pub(crate) fn wants_data_key(&self) -> Result<bool, CertificatesError> {
        let seal = self.seal();
        let (_, keys) = self.data_keys(&seal)?;
        Ok(keys.is_some_and(|keys| keys.needs_rotation || keys.pending.is_some()))
    }

    fn data_keys(&self, seal: &Seal) -> Result<(KeyFile, Option<DataKeys>), CertificatesError> {
        let file = self.key_file(seal)?;
        let file = file.ok_or_else(|| CertificatesError::Damaged(self.key_path()))?;
        let keys = DataKeys::read(&file.headers, seal.kek.as_ref())
            .map_err(|error| self.unreadable(error, seal.kek.as_ref()))?;
        Ok((file, keys))
    }
}

impl KeyKeeper for Certificates {
    fn load(&self) -> Result<Option<KeySet>, KeeperError> {
        let (_, keys) = self.data_keys(&self.seal())?;
        Ok(keys.map(|keys| KeySet {
            current: DataKey::new(*keys.current),
            pending: keys.pending.map(|pending| DataKey::new(*pending)),
        }))
    }

    /// Keys that were asked for are there with the first of them.
    fn save(&self, keys: &KeySet) -> Result<(), KeeperError> {
        let seal = self.seal();
        let (mut file, before) = self.data_keys(&seal)?;
        let secret = |key: &DataKey| Zeroizing::new(*key.secret());
        let wanted = before.is_some_and(|before| before.needs_rotation);
        let keys = DataKeys {
            current: secret(&keys.current),
            pending: keys.pending.as_ref().map(secret),
            needs_rotation: wanted && keys.pending.is_none(),
        };
        keys.write(&mut file.headers, seal.kek.as_ref(), &mut nonce);
        let text = sealed_text(&file, &seal)?;
        Ok(self.apply(&plan::replace_key(&text))?)
    }

    fn place(&self) -> String {
        self.key_path().display().to_string()
    }
}
