//! `kubebus-mapper-modbus`: see the library's page.

fn main() -> std::process::ExitCode {
    kubebus_sdk::main::<mapper_modbus::ModbusMapper>()
}
