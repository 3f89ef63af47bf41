// Asks the registry for advisories about what the lock file pins; fails when there are any. A registry that has none to
// give, such as a mirror, is said and not taken for a failure.
import { spawnSync } from 'node:child_process';

const { stdout } = spawnSync('npm', ['audit', '--json'], { encoding: 'utf8' });
const report = read(stdout);
if (!report?.metadata) {
  console.warn(`npm audit has no answer here: ${report?.message ?? report?.error?.summary ?? 'it said nothing'}`);
} else {
  const { total } = report.metadata.vulnerabilities;
  for (const [name, { severity, via }] of Object.entries(report.vulnerabilities))
    console.error(`${name}: ${severity}, ${via.map((one) => one.title ?? one).join('; ')}`);
  console.log(`npm audit: ${total} advisories about ${report.metadata.dependencies.total} packages`);
  process.exitCode = total === 0 ? 0 : 1;
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
