// Checks the packages of the lock file against the advisories of the registry; fails when one of them has an advisory.
// A registry without advisories, such as a mirror, is reported as a warning.
import { spawnSync } from 'node:child_process';

const { stdout } = spawnSync('npm', ['audit', '--json'], { encoding: 'utf8' });
const report = read(stdout);
if (!report?.metadata) {
  console.warn(`npm audit returned no report: ${report?.message ?? report?.error?.summary ?? 'no output'}`);
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
