//! `ssi fabric dump`: the fabric's frames in a capture of tcpdump's, one line each.

use crate::Error;
use crate::capture::conversation::{Conversations, Happened, What};
use crate::capture::file::Capture;
use crate::capture::packet::Segment;
use crate::verb::Outcome;
use clap::Args;
use fabric::bystander::Seen;
use fabric::frame::{Access, Flags, Header, Kind, Verdict};
use fabric::{Priority, ServiceId, service};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Show the fabric's frames in a capture.
#[derive(Debug, Args)]
pub struct Dump {
    /// The capture, pcap or pcapng; `-` reads standard input: `tcpdump -i any -w - portrange 7100-7101 | ssi fabric dump -`.
    file: PathBuf,
    /// Print JSON, an object a line.
    #[arg(long)]
    json: bool,
}

impl Dump {
    /// Reads to the end and prints.
    pub fn run(self) -> Outcome {
        let failed = |source| Error::File { path: self.file.clone(), source };
        let source: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.file).map_err(failed)?)
        };
        let mut out = BufWriter::new(io::stdout());
        let strange = dump(BufReader::new(source), &mut out, self.json).map_err(failed)?;
        if strange > 0 {
            eprintln!(
                "ssi: {strange} directions of connections are not shown: not the fabric's, or their beginning is not captured"
            );
        }
        Ok(0)
    }
}

/// Prints what is in a capture. How many directions of connections were not understood.
fn dump(source: impl Read, out: &mut impl Write, as_json: bool) -> io::Result<u64> {
    let mut capture = Capture::open(source)?;
    let mut conversations = Conversations::default();
    let mut print = |happened: Vec<Happened>| {
        for one in happened {
            if as_json { writeln!(out, "{}", object(&one))? } else { writeln!(out, "{}", line(&one))? }
        }
        // Whoever watches a live capture wants to see what has come.
        out.flush()
    };
    let mut time_ns = 0;
    while let Some(packet) = capture.next_packet()? {
        time_ns = packet.time_ns;
        if let Some(segment) = Segment::of(&packet) {
            let happened = conversations.take(time_ns, &segment);
            if !happened.is_empty() {
                print(happened)?;
            }
        }
    }
    print(conversations.end(time_ns))?;
    Ok(conversations.strange())
}

fn time(ns: u64) -> String {
    format!("{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000)
}

fn line(happened: &Happened) -> String {
    let what = match &happened.what {
        What::Missing(bytes) => {
            format!("{bytes} bytes are missing in the capture; the rest of this direction cannot be read")
        }
        What::Ends => "ends".into(),
        What::Seen(seen) => text(seen),
    };
    format!("{} {} > {} {what}", time(happened.time_ns), happened.from, happened.to)
}

fn text(seen: &Seen) -> String {
    match seen {
        Seen::Preamble(preamble) => {
            let ((min, max), (key, cluster)) = (preamble.versions(), preamble.tags());
            format!("preamble versions {min}-{max} key {key:08x} cluster {cluster:016x}")
        }
        Seen::Answer(answer) => {
            let (min, max) = answer.versions();
            let why = answer.check().err().map(|why| format!(" refused: {why}")).unwrap_or_default();
            format!("answer versions {min}-{max}{why}")
        }
        Seen::Hello(bytes) => format!("hello, sealed {bytes} bytes"),
        Seen::Terms(bytes) => format!("terms, sealed {bytes} bytes"),
        Seen::Sealed(bytes) => format!("record, sealed {bytes} bytes"),
        Seen::Piece(bytes) => format!("piece {bytes} bytes"),
        Seen::Broken(error) => error.to_string(),
        Seen::Frame(header, access) => frame(header, access.as_ref()),
    }
}

fn frame(header: &Header, access: Option<&Access>) -> String {
    let mut text = format!("{} {}", kind(header.kind), channel(header.channel));
    text.push_str(&format!(" slot {} sequence {}", header.slot, header.sequence));
    if matches!(header.kind, Kind::Request) {
        text.push_str(&format!(" service {}", service_name(header.service)));
    }
    if matches!(header.kind, Kind::Reply | Kind::Done) {
        text.push_str(&format!(" {}", verdict(header.verdict)));
    }
    for (name, value) in [
        ("head", header.head),
        ("bulk", header.bulk),
        ("deadline-ms", header.deadline_ms),
        ("credit-kib", header.credit),
    ] {
        if value > 0 {
            text.push_str(&format!(" {name} {value}"));
        }
    }
    for flag in flags(header) {
        text.push_str(&format!(" {flag}"));
    }
    if let Some(access) = access {
        text.push_str(&format!(
            " region {} epoch {} offset {} length {} at {}",
            access.region, access.epoch, access.offset, access.length, access.at
        ));
        if access.notify {
            text.push_str(" notify");
        }
    }
    text
}

fn object(happened: &Happened) -> Value {
    let mut object = json!({
        "time": time(happened.time_ns), "from": happened.from.to_string(), "to": happened.to.to_string(),
    });
    let more = match &happened.what {
        What::Missing(bytes) => json!({"what": "missing", "bytes": bytes}),
        What::Ends => json!({"what": "ends"}),
        What::Seen(seen) => seen_object(seen),
    };
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn seen_object(seen: &Seen) -> Value {
    match seen {
        Seen::Preamble(preamble) => {
            let ((min, max), (key, cluster)) = (preamble.versions(), preamble.tags());
            json!({"what": "preamble", "version_min": min, "version_max": max, "key": format!("{key:08x}"), "cluster": format!("{cluster:016x}")})
        }
        Seen::Answer(answer) => {
            let (min, max) = answer.versions();
            json!({"what": "answer", "version_min": min, "version_max": max, "refused": answer.check().err().map(|why| why.to_string())})
        }
        Seen::Hello(bytes) => json!({"what": "hello", "sealed": bytes}),
        Seen::Terms(bytes) => json!({"what": "terms", "sealed": bytes}),
        Seen::Sealed(bytes) => json!({"what": "record", "sealed": bytes}),
        Seen::Piece(bytes) => json!({"what": "piece", "bytes": bytes}),
        Seen::Broken(error) => json!({"what": "broken", "why": error.to_string()}),
        Seen::Frame(header, access) => json!({
            "what": "frame", "kind": kind(header.kind), "channel": channel(header.channel), "slot": header.slot,
            "sequence": header.sequence, "service": header.service.0, "verdict": verdict(header.verdict), "head": header.head,
            "bulk": header.bulk, "deadline_ms": header.deadline_ms, "credit_kib": header.credit, "flags": flags(header),
            "access": access.map(|access| json!({"region": access.region, "epoch": access.epoch, "offset": access.offset,
                "length": access.length, "at": access.at, "notify": access.notify})),
        }),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Request => "request",
        Kind::Reply => "reply",
        Kind::Chunk => "chunk",
        Kind::Cancel => "cancel",
        Kind::Taken => "taken",
        Kind::Credit => "credit",
        Kind::Write => "write",
        Kind::Read => "read",
        Kind::ReadData => "read-data",
        Kind::Done => "done",
        Kind::Goodbye => "goodbye",
    }
}

fn channel(channel: Priority) -> &'static str {
    match channel {
        Priority::Control => "control",
        Priority::Lock => "lock",
        Priority::Meta => "meta",
        Priority::Data => "data",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Answered => "answered",
        Verdict::NoService => "no-service",
        Verdict::Crashed => "crashed",
        Verdict::Unheard => "unheard",
        Verdict::Denied => "denied",
        Verdict::Revoked => "revoked",
        Verdict::OutOfBounds => "out-of-bounds",
    }
}

fn service_name(id: ServiceId) -> String {
    let name = match id {
        service::MEMBERSHIP => "membership",
        service::PROCESSES => "processes",
        service::LOAD => "load",
        service::METADATA => "metadata",
        service::OBJECTS => "objects",
        service::ADMIN => "admin",
        service::REPLOG => "replog",
        _ => return id.0.to_string(),
    };
    format!("{} ({name})", id.0)
}

fn flags(header: &Header) -> Vec<&'static str> {
    let bits = [(Flags::MORE, "more"), (Flags::ONE_WAY, "one-way"), (Flags::AGAIN, "again")];
    bits.into_iter().filter(|(bit, _)| header.flags.has(*bit)).map(|(_, name)| name).collect()
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
