"""What augengine is built on: licences of its dependencies, a bill of materials, hashes."""
