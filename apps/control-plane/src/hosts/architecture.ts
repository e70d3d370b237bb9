/** As node, Go and uname call them. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  amd64: 'amd64',
  x64: 'amd64',
  x86_64: 'amd64',
  arm64: 'arm64',
  aarch64: 'arm64',
};

/** What the API calls a processor's architecture; undefined for one that Wrenn does not run on. */
export function architectureOf(name: string): string | undefined {
  return ARCHITECTURES[name.toLowerCase()];
}
