//! The verbs on real devices: Soft-RoCE in a virtual machine, or whatever the machine has. Without any each test says so and
//! passes, unless SSI_VERBS_VM=1 says that there must be some.

mod atomics;
mod ends;
mod failures;
mod machine;
mod messages;
mod one_sided;
mod ports;
mod provider;
mod world;
