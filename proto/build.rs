//! Compiles the messages of the outbox and of the state file; needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let messages = protox::compile(["outbox.proto", "state.proto"], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(messages)?;
    Ok(())
}
