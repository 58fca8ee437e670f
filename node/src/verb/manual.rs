//! The manual's pages that no definition of a command line gives: those of libssi.

use std::io;
use std::path::Path;

macro_rules! pages {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../../libssi/man/", $name)))),*]
    };
}

/// Name and text of each page.
const PAGES: [(&str, &str); 13] = pages! {
    "cluster_detailedtransition.3" "cluster_getnodebyname.3" "cluster_maxnodes.3" "cluster_membership.3" "cluster_name.3"
    "cluster_ssiconfig.3" "cluster_transition.3" "cluster_waittransition.3" "clusternode_avail.3" "clusternode_info.3"
    "clusternode_num.3" "clusternode_setinfo.3" "libssi.7"
};

/// Writes them into a directory.
///
/// # Errors
/// As write(2).
pub fn write(directory: &Path) -> io::Result<()> {
    PAGES.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_libssi_is_written() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libssi/man");
        for page in std::fs::read_dir(sources).unwrap() {
            let page = page.unwrap();
            let written = std::fs::read(dir.path().join(page.file_name())).unwrap();
            assert_eq!(written, std::fs::read(page.path()).unwrap(), "{page:?}");
        }
    }
}
