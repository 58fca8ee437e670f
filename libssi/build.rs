//! Gives the library the name that programs are linked to.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not `rustc-cdylib-link-arg`: that one also names the libraries that depend on this one.
    println!("cargo:rustc-link-arg=-Wl,-soname,libssi.so.1");
}
