// Generates gen/ and docs/api.md from proto/. With --check it generates into a temporary directory and fails when they
// differ.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * The parts of a decoder of ts-proto that are replaced. It stops without an error at a tag of 0 or at the end of a group
 * that never began, and reads past the end of a message whose last field is too long. A part of a message would then be
 * accepted as a complete one.
 */
const LENIENT = [
  [
    /if \(\(tag & 7\) === 4 \|\| tag === 0\) \{\s+break;\s+\}/g,
    'if ((tag & 7) === 4 || tag === 0) {\n          throw new globalThis.Error("malformed message");\n        }',
  ],
  [
    /\n {6}return message;\n {4}\} finally \{/g,
    '\n      if (reader.pos !== end) {\n        throw new globalThis.Error("malformed message");\n      }\n      return message;\n    } finally {',
  ],
];
const DECODER = /^ {2}decode\(.*\{$/gm;

/**
 * Makes the decoders reject malformed messages. Fails if a decoder does not have the expected text, which another version
 * of ts-proto may change.
 */
function makeStrict(directory) {
  for (const file of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue;
    const path = join(file.parentPath, file.name);
    let code = readFileSync(path, 'utf8');
    const decoders = countOf(code, DECODER);
    for (const [lenient, strict] of LENIENT) {
      const count = countOf(code, lenient);
      if (count !== decoders)
        throw new Error(`${path} has ${decoders} decoders, and ${count} with ${lenient}; update scripts/generate.mjs`);
      code = code.replaceAll(lenient, strict);
    }
    if (decoders > 0) writeFileSync(path, code);
  }
}

const countOf = (code, pattern) => code.match(pattern)?.length ?? 0;

/** Writes JSON as a TypeScript module, because JSON cannot be imported in every module system of the client. */
function writeModule(source, name, path, { drop = [], constant = '' } = {}) {
  const json = JSON.parse(readFileSync(source, 'utf8'), (key, value) => (drop.includes(key) ? undefined : value));
  const code = `// Generated from ${source}. DO NOT EDIT.\n\nexport const ${name} = ${JSON.stringify(json, null, 2)}${constant};\n`;
  writeFileSync(path, code);
}

const run = (command, ...args) => execFileSync(command, args, { stdio: 'inherit' });
const check = process.argv.includes('--check');
const out = check ? mkdtempSync(join(tmpdir(), 'agentllm-gen-')) : 'gen';

run('buf', 'generate', '--output', check ? out : '.');
const generated = check ? join(out, 'gen') : 'gen';
// The descriptors include the comments, which reflection returns.
run('buf', 'build', '-o', join(generated, 'descriptor.binpb'), '--as-file-descriptor-set');
makeStrict(join(generated, 'ts'));
writeModule('proto/agentllm/v1/service_config.json', 'serviceConfig', join(generated, 'ts/service_config.ts'));
// Without what only tests and people read. As a constant, so that the compiler checks the names of classes and actions.
const rulesOnly = { drop: ['about', 'examples', 'source'], constant: ' as const' };
writeModule('conformance/error_rules.json', 'errorRules', join(generated, 'ts/error_rules.ts'), rulesOnly);
const reference = check ? join(out, 'api.md') : 'docs/api.md';
run('tsx', 'scripts/api_reference.ts', join(generated, 'descriptor.binpb'), reference);
if (check) {
  try {
    run('diff', '-r', generated, 'gen');
    run('diff', reference, 'docs/api.md');
  } catch {
    console.error('gen/ or docs/api.md is outdated; run npm run generate and commit the result');
    process.exitCode = 1;
  } finally {
    rmSync(out, { recursive: true });
  }
}
