//! `cargo bench -p swarm-bench --bench remotes`.

fn main() -> std::process::ExitCode {
    swarm_bench::runner::main(swarm_bench::remotes::ROWS)
}
