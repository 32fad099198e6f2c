// swift-tools-version: 6.2
import PackageDescription

/// `make check` sets this: a warning is an error where we work, and only a warning for a user with a newer compiler.
let isChecked = Context.environment["CLAUDE_FCGI_CHECK"] != nil
/// Every target is built alike: Swift 6, unsafe expressions marked, GNU's system calls visible in the Glibc module.
let settings: [SwiftSetting] =
    [.strictMemorySafety(), .enableUpcomingFeature("ExistentialAny")]
    + (isChecked ? [.treatAllWarnings(as: .error)] : [])
let gnu: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "claude-fcgi",
    products: [
        .executable(name: "claude-fcgi", targets: ["ClaudeFCGI"]),
        .executable(name: "claude-offline-upstream", targets: ["OfflineUpstream"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/groue/GRDB.swift.git", from: "7.10.0"),
    ],
    targets: [
        .systemLibrary(name: "CFastCGI", pkgConfig: "fcgi", providers: [.apt(["libfcgi-dev"])]),
        .systemLibrary(name: "CLinux"),
        .target(name: "FastCGI", dependencies: ["CFastCGI", "CLinux"], cSettings: gnu, swiftSettings: settings),
        .target(name: "Dialects", swiftSettings: settings),
        .target(name: "ProcessControl", dependencies: ["CLinux"], cSettings: gnu, swiftSettings: settings),
        .target(name: "Admission", dependencies: ["CLinux"], cSettings: gnu, swiftSettings: settings),
        .target(
            name: "Sessions", dependencies: [.product(name: "GRDB", package: "GRDB.swift")], swiftSettings: settings),
        .executableTarget(
            name: "ClaudeFCGI",
            dependencies: [
                "Admission", "CLinux", "Dialects", "FastCGI", "ProcessControl", "Sessions",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            cSettings: gnu, swiftSettings: settings),
        .executableTarget(
            name: "OfflineUpstream",
            dependencies: [
                "CLinux", "Dialects", "FastCGI",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            cSettings: gnu, swiftSettings: settings),
        .executableTarget(
            name: "AdmissionStress", dependencies: ["Admission", "CLinux", "ProcessControl"],
            path: "Tests/Stress/AdmissionStress",
            cSettings: gnu, swiftSettings: settings),
        .executableTarget(
            name: "AdmissionBenchmark", dependencies: ["Admission", "CLinux"], path: "Benchmarks/AdmissionBenchmark",
            cSettings: gnu, swiftSettings: settings),
        .executableTarget(
            name: "HotPathBenchmark", dependencies: ["Dialects"], path: "Benchmarks/HotPathBenchmark",
            swiftSettings: settings),
        .testTarget(name: "DialectsTests", dependencies: ["Dialects"], swiftSettings: settings),
        .testTarget(
            name: "OfflineUpstreamTests", dependencies: ["Dialects", "OfflineUpstream"], cSettings: gnu,
            swiftSettings: settings),
        .testTarget(
            name: "FastCGITests", dependencies: ["CLinux", "FastCGI"], cSettings: gnu, swiftSettings: settings),
        .testTarget(
            name: "ProcessControlTests", dependencies: ["CLinux", "ProcessControl"], cSettings: gnu,
            swiftSettings: settings),
        .testTarget(
            name: "AdmissionTests", dependencies: ["Admission", "CLinux"], cSettings: gnu, swiftSettings: settings),
        .testTarget(
            name: "SessionsTests", dependencies: ["Sessions", .product(name: "GRDB", package: "GRDB.swift")],
            swiftSettings: settings),
        .testTarget(
            name: "ClaudeFCGITests", dependencies: ["ClaudeFCGI", "Dialects", "Sessions"], cSettings: gnu,
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)
