//! The kernel of the machine: Debian's, with Soft-RoCE. Downloaded and unpacked, never installed.
//!
//! Invariant: the directory of a kernel appears whole, by one rename, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::run::Run;
use crate::sys;

/// The package that depends on the newest kernel.
const NEWEST: &str = "linux-image-amd64";
/// Brings the few programs of the first file system.
const BUSYBOX: &str = "busybox-static";
/// For 70 megabytes on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);
const UNPACK_LIMIT: Duration = Duration::from_secs(180);

/// What the machine needs; that which these need comes with them. The last line is for a whole cluster inside.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "rdma_rxe",
    // Without it a device cannot be added; no module says that it needs it.
    "crc32_generic",
    "ib_uverbs",
    "rdma_ucm",
    "veth",
    "bridge",
    "sch_netem",
    "fuse",
    "overlay",
];

/// A kernel in a directory: `vmlinux`, `busybox`, modules, and `order`, which names the modules in loading order.
pub fn ready(cache: &Path) -> Result<PathBuf, Error> {
    // Another list of modules, another directory.
    let kernel = cache.join("kernel-1");
    if kernel.join("order").exists() {
        return Ok(kernel);
    }
    let stage = cache.join(format!("stage.{}", std::process::id()));
    fs::create_dir_all(&stage).map_err(Error::io(format!("make {}", stage.display())))?;
    let outcome = fetch(&stage).and_then(|whole| match fs::rename(&whole, &kernel) {
        // Somebody else was faster.
        Err(_) if kernel.join("order").exists() => Ok(()),
        other => other.map_err(Error::io(format!("make {}", kernel.display()))),
    });
    fs::remove_dir_all(&stage).map_err(Error::io(format!("remove {}", stage.display())))?;
    outcome.map(|()| kernel)
}

/// Downloads and unpacks in `stage`; gives the directory that holds what is needed.
fn fetch(stage: &Path) -> Result<PathBuf, Error> {
    let package = downloaded(stage)?;
    let (tree, whole) = (stage.join("tree"), stage.join("whole"));
    fs::create_dir(&whole).map_err(Error::io("make a directory"))?;
    for deb in files_of(stage)?.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        Run::line("dpkg-deb -x").args([deb, &tree]).limit(UNPACK_LIMIT).checked()?;
    }
    let version = package.trim_start_matches("linux-image-");
    copy(&tree.join("bin/busybox"), &whole.join("busybox"))?;
    uncompress(&tree.join(format!("boot/vmlinuz-{version}")), &whole)?;
    let depmod = crate::setup::program("depmod").unwrap_or_else(|| "depmod".into());
    Run::new([depmod])
        .args(["-b".as_ref(), tree.as_os_str(), version.as_ref()])
        .limit(UNPACK_LIMIT)
        .checked()?;
    take_modules(&tree.join("lib/modules").join(version), &whole)?;
    Ok(whole)
}

/// Downloads the packages; gives the name of the kernel's. Without them there can be no machine, which is no failure.
fn downloaded(stage: &Path) -> Result<String, Error> {
    let missing = |error: Error| match error {
        Error::Interrupted => error,
        error => Error::Missing(format!("cannot get a kernel: {error}")),
    };
    match download(stage) {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        // The index may be absent, or older than what there is now.
        Err(_) if sys::is_root() => {
            Run::line("apt-get update -q").limit(DOWNLOAD_LIMIT).checked().map_err(missing)?;
            download(stage).map_err(missing)
        }
        other => other.map_err(missing),
    }
}

fn download(stage: &Path) -> Result<String, Error> {
    let depends = Run::line("apt-cache depends").args([NEWEST]).checked()?.text();
    let package = kernel_package(&depends)
        .ok_or_else(|| Error::Missing(format!("the package index has no {NEWEST}")))?;
    println!("test-verbs: fetching {package} and {BUSYBOX} (unpacked, not installed)");
    let run = Run::line("apt-get download -q -o APT::Sandbox::User=root").args([package, BUSYBOX]);
    run.directory(stage).limit(DOWNLOAD_LIMIT).checked()?;
    Ok(package.to_owned())
}

/// `  Depends: linux-image-6.1.0-56-amd64`
fn kernel_package(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io(format!("read {}", directory.display())))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(drop).map_err(Error::io(format!("copy {} to {}", from.display(), to.display())))
}

/// Takes the kernel itself out of its self-unpacking file: unpacking takes an emulated processor four seconds. Where
/// that is not possible the file as it is boots too.
fn uncompress(packed: &Path, whole: &Path) -> Result<(), Error> {
    const XZ: &[u8] = b"\xfd7zXZ\0";
    let bytes = fs::read(packed).map_err(Error::io(format!("read {}", packed.display())))?;
    let begin = bytes.windows(XZ.len()).position(|part| part == XZ);
    if let Some(begin) = begin {
        let path = whole.join("vmlinux.xz");
        let written = fs::File::create(&path).and_then(|mut file| file.write_all(&bytes[begin..]));
        written.map_err(Error::io("write the compressed kernel"))?;
        let unpacked = Run::line("xz -dk --single-stream").args([&path]).limit(UNPACK_LIMIT).checked();
        fs::remove_file(&path).map_err(Error::io("remove the compressed kernel"))?;
        if unpacked.is_ok() {
            return Ok(());
        }
    }
    copy(packed, &whole.join("vmlinux"))
}

/// Copies the modules that are needed, and writes the order in which they are loaded.
fn take_modules(modules: &Path, whole: &Path) -> Result<(), Error> {
    let read = |name: &str| {
        let path = modules.join(name);
        fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
    };
    let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let order = loading_order(&dep, &builtin, &MODULES)?;
    let mut names = String::new();
    for path in order {
        let name = path.rsplit('/').next().unwrap_or(path);
        copy(&modules.join(path), &whole.join(name))?;
        names.push_str(name);
        names.push('\n');
    }
    fs::write(whole.join("order"), names).map_err(Error::io("write the list of modules"))
}

/// The modules' files, each after those that it needs. `dep` has a line `file: file file ..` for each, in which what is
/// loaded first stands last.
fn loading_order<'a>(dep: &'a str, builtin: &str, wanted: &[&str]) -> Result<Vec<&'a str>, Error> {
    let stem = |path: &str| {
        path.rsplit('/').next().and_then(|name| name.split('.').next()).map(|n| n.replace('-', "_"))
    };
    let lines = dep.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<String, (&str, &str)> =
        lines.filter_map(|(path, needed)| Some((stem(path)?, (path, needed)))).collect();
    let built_in: Vec<String> = builtin.lines().filter_map(stem).collect();
    let mut order = Vec::new();
    for name in wanted {
        let Some((path, needed)) = needs.get(*name) else {
            if built_in.iter().any(|there| there == name) {
                continue;
            }
            return Err(Error::Missing(format!("the kernel has no module {name}")));
        };
        for path in needed.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_what_its_package_needs() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(kernel_package(depends), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(kernel_package("linux-image-amd64\n"), None);
    }

    #[test]
    fn a_module_is_loaded_after_what_it_needs_and_once() {
        let dep = "k/a.ko: k/c-c.ko k/b.ko\nk/b.ko:\nk/c-c.ko: k/b.ko\nk/d.ko: k/b.ko\n";
        let order = loading_order(dep, "k/e-e.ko\n", &["d", "a", "e_e", "c_c"]).unwrap();
        assert_eq!(order, ["k/b.ko", "k/d.ko", "k/c-c.ko", "k/a.ko"]);
        let error = loading_order(dep, "", &["nothing"]).unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
    }
}
