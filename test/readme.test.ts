import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { settings } from '../src/config.js';
import { packageFile } from '../src/package.js';
import { startCommand, useDirectories } from './support/command.js';

const readme = readFileSync(packageFile('README.md'), 'utf8');
const directory = useDirectories();

interface Step {
  readonly command: string;
  readonly output: string;
}

/** The commands of the README's console blocks with what they print. */
const transcript: readonly Step[] = [...readme.matchAll(/^```console\n\$ (.*)\n([\s\S]*?)^```$/gm)].map(
  ([, command, output]) => ({ command: command as string, output: output as string }),
);

/** Runs a command as it stands, against another port; grpcurl by buf curl where it is not installed. */
async function run(command: string, port: number): Promise<string> {
  const [, words = [], body] = splitWords(command.replaceAll('127.0.0.1:50051', `127.0.0.1:${port}`));
  const { PATH } = process.env;
  const env = { ...process.env, PATH: `${packageFile('node_modules/.bin')}:${PATH}:${process.env['HOME']}/go/bin` };
  const [program = '', ...args] = words;
  const target = args.at(-1) as string;
  const call = async (file: string, all: readonly string[]) =>
    promisify(execFile)(file, all, { env }).then(
      ({ stdout }) => stdout,
      ({ code, stdout, stderr }) => {
        if (code === 'ENOENT') throw new Error('ENOENT');
        return `${stdout}${stderr}`;
      },
    );
  if (program === 'npx') return call(args[0] as string, args.slice(1));
  return call(program, args).catch(() => {
    const url = `http://127.0.0.1:${port}/${target}`;
    return call('buf', ['curl', '--protocol', 'grpc', '--http2-prior-knowledge', '-d', body as string, url]);
  });
}

/** Splits a command as a shell does with single quotes; also gives the word after `-d`. */
function splitWords(command: string): [string, string[], string | undefined] {
  const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? (plain as string));
  return [command, words, words[words.indexOf('-d') + 1]];
}

/** Times and etags differ from run to run; everything else must be as printed. */
const steady = (json: string): unknown =>
  JSON.parse(json, (key, value) => (/^(createdAt|updatedAt|etag)$/.test(key) ? typeof value : value));

describe('the README', () => {
  it('prints what its commands print', async () => {
    expect(transcript.length).toBeGreaterThanOrEqual(4);
    const service = await startCommand({ DATA_DIR: await directory() });
    for (const { command, output } of transcript) {
      const printed = await run(command, service.port);
      if (output.startsWith('{')) expect(steady(printed), command).toEqual(steady(output));
      else {
        const message = /Message: (.*)/.exec(output)?.[1] as string;
        // buf curl prints errors as JSON, with escaped quotes.
        expect(printed.replaceAll('\\"', '"'), command).toContain(message);
      }
    }
  });

  it('lists every setting as the code has it', () => {
    for (const [name, { unset, about }] of Object.entries(settings))
      expect(readme).toContain(`| \`${name}\` | \`${unset}\` | ${about} |`);
  });

  it('links to files that exist', () => {
    for (const [, target] of readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g))
      expect(() => readFileSync(packageFile(target as string))).not.toThrow();
  });

  it('names scripts that exist', () => {
    const { scripts } = JSON.parse(readFileSync(packageFile('package.json'), 'utf8')) as { scripts: object };
    for (const [, script] of readme.matchAll(/npm run (\w+)/g)) expect(Object.keys(scripts)).toContain(script);
  });
});
