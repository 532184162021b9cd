//! Whether all objects of a committed backup are there, by their names and lengths.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::{Catalog, Found, Incomplete, Unreadable};
use crate::error::Error;
use crate::layout;
use crate::manifest::Manifest;
use crate::store::{Depth, Entry};

/// What lies in the folder of a backup.
#[derive(Debug, Default)]
pub(super) struct Objects(BTreeMap<Box<str>, u64>);

impl Objects {
    pub(super) fn add(&mut self, name: &str, bytes: u64) {
        self.0.insert(name.into(), bytes);
    }

    fn has_manifest(&self) -> bool {
        self.0.contains_key(layout::MANIFEST)
    }

    /// The names of what is not there as `manifest` says.
    fn lacking(&self, manifest: &Manifest) -> Vec<String> {
        let parts = manifest.parts.iter().flat_map(|part| &part.objects);
        let lost = parts.filter(|object| self.0.get(object.name.as_str()) != Some(&object.bytes));
        let key = manifest.encryption.iter().map(|record| &record.key);
        let lost_key = key.filter(|key| !self.0.contains_key(key.as_str()));
        let names = lost.map(|object| &object.name).chain(lost_key);
        names.cloned().collect()
    }
}

impl Catalog<'_> {
    /// The manifest that a folder has, and what the backup lacks, if that is known.
    pub(super) async fn read_found(
        &self,
        found: &Found,
    ) -> Result<Option<(Manifest, Option<Incomplete>)>, Unreadable> {
        let Some(manifest) = self.read(&found.source, &found.id).await? else {
            return Ok(None);
        };
        let seems_whole =
            |objects: &Objects| objects.has_manifest() && objects.lacking(&manifest).is_empty();
        if found.objects.as_ref().is_none_or(seems_whole) {
            return Ok(Some((manifest, None)));
        }
        // It may have been committed while the folder was listed, or deleted since.
        let objects = self.objects(&manifest).await.map_err(Unreadable::Store)?;
        if !objects.has_manifest() {
            return Ok(None);
        }
        let Some(lacking) = Incomplete::new(&manifest, &objects) else {
            return Ok(Some((manifest, None)));
        };
        // Or others can open it since the manifest was read, with a key of another name.
        match self.read(&found.source, &found.id).await? {
            Some(now) if now != manifest => {
                let objects = self.objects(&now).await.map_err(Unreadable::Store)?;
                let lacking = Incomplete::new(&now, &objects);
                Ok(Some((now, lacking)))
            }
            _ => Ok(Some((manifest, Some(lacking)))),
        }
    }

    /// What a committed backup lacks now.
    ///
    /// # Errors
    /// What the store reports.
    pub(crate) async fn lacking(&self, manifest: &Manifest) -> Result<Vec<String>, Error> {
        Ok(self.objects(manifest).await?.lacking(manifest))
    }

    async fn objects(&self, manifest: &Manifest) -> Result<Objects, Error> {
        let source = &manifest.source;
        let prefix = layout::backup_prefix(source, &manifest.id);
        let mut entries = self.store.list(Some(&prefix), Depth::Recursive);
        let mut objects = Objects::default();
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|e| Error::store(format!("list {prefix}"), e))?;
            if let Entry::Object(meta) = entry
                && let Some((_, name)) = layout::parse_object_key(source, &meta.key)
            {
                objects.add(name, meta.bytes);
            }
        }
        Ok(objects)
    }
}

impl Incomplete {
    fn new(manifest: &Manifest, objects: &Objects) -> Option<Self> {
        let lacking = objects.lacking(manifest);
        (!lacking.is_empty()).then(|| Self {
            source: manifest.source.clone(),
            id: manifest.id.clone(),
            objects: lacking,
        })
    }
}
