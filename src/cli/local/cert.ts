import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { Command } from 'commander';
import { writeFileAtomically } from '../../atomic_file.js';
import { certificateIdentities } from '../../domain/certificate.js';
import { printError } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { terminal } from '../kit/print.js';
import type { Pair } from './certificate_authority.js';

/** The options of `agentllm cert dev`. */
interface CertOptions {
  readonly out: string;
  readonly host: readonly string[];
  readonly client: readonly string[];
  readonly days: string;
}

const LOCAL_NAMES = ['localhost', '127.0.0.1', '::1'];
const MAX_DAYS = 825;
const AUTHORITY_DAYS = 825;
/** The limit of X.520; strict verifiers reject longer names. */
const MAX_COMMON_NAME_LENGTH = 64;

const collect = (value: string, before: readonly string[]) => [...before, value];

/** `agentllm cert dev`: certificates for trying TLS. */
export function certCommand(): Command {
  const command = new Command('cert').description('create certificates for trying TLS');
  command
    .command('dev')
    .description('create a certificate authority, a certificate for the service, and certificates for clients')
    .option('--out <directory>', 'output directory; an existing authority in it is reused', 'certs')
    .option(
      '--host <name>',
      'name or address of the service, in addition to those of this machine; can be repeated',
      collect,
      [],
    )
    .option(
      '--client <identity>',
      'create a client certificate: a URI such as spiffe://desk/trader, or a common name; can be repeated',
      collect,
      [],
    )
    .option('--days <number>', `validity in days, 1 to ${MAX_DAYS}`, '30')
    .addHelpText('after', EXAMPLES)
    .action(run);
  return command;
}

const EXAMPLES = `
Run it again to renew the certificates with the existing keys, or to add a client.

Examples:
  $ agentllm cert dev
  $ agentllm cert dev --host agentllm.test --client spiffe://desk/trader`;

async function run(options: CertOptions): Promise<void> {
  try {
    await makeAll(options);
  } catch (error) {
    process.exitCode = printError(error, { json: false, command: 'agentllm cert dev', inputs: [], causes: [] });
  }
}

async function makeAll({ out, host, client, days }: CertOptions): Promise<void> {
  const lifetime = daysOf(days);
  const clients = client.map((identity) => ({ identity, ...clientOf(out, identity) }));
  for (const name of host) checkHost(name);
  const { makeLeaf } = await import('./certificate_authority.js');
  makeDirectory(out);
  const authority = await authorityIn(out);
  const server = join(out, 'server');
  const names = [
    ...new Set([
      ...LOCAL_NAMES,
      ...hostsOf(server),
      ...host.map((name) => (isIP(name) === 6 ? shortened(name) : name)),
    ]),
  ];
  const general = names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value }));
  const writeLeaf = async (
    base: string,
    description: string,
    wish: Omit<Parameters<typeof makeLeaf>[1], 'days' | 'key'>,
  ) => {
    const key = readIf(`${base}.key`);
    await write(base, description, await makeLeaf(authority, { ...wish, days: lifetime, key }), key !== undefined);
  };
  await writeLeaf(server, names.join(', '), { kind: 'server', names: general });
  for (const { base, identity, ...wish } of clients)
    await writeLeaf(base, identityOf(identity), { kind: 'client', ...wish });
  terminal.out(instructions(out, clients[0]));
}

function makeDirectory(out: string): void {
  try {
    mkdirSync(out, { recursive: true, mode: 0o700 });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw UsageError.of([{ typed: `--out ${out}`, description: `cannot be created as a directory (${code})` }]);
  }
}

/** The authority in a directory; a new one if there is none. */
async function authorityIn(out: string): Promise<Pair> {
  const { makeAuthority } = await import('./certificate_authority.js');
  const base = join(out, 'ca');
  const [cert, key] = [readIf(`${base}.pem`), readIf(`${base}.key`)];
  if (cert === undefined && key === undefined) {
    const made = await makeAuthority(AUTHORITY_DAYS);
    await write(base, 'the authority', made, false);
    return made;
  }
  if (cert === undefined || key === undefined)
    throw new UsageError(
      `${base}.pem and ${base}.key must both exist, and one of them is missing: choose another --out`,
    );
  if (new Date(certificateIn(base, cert).validTo) < new Date())
    throw new UsageError(`${base}.pem has expired: remove it, ${base}.key and the certificates that it has signed`);
  return { cert, key };
}

function daysOf(text: string): number {
  const days = Number(text);
  if (/^\d+$/.test(text) && days >= 1 && days <= MAX_DAYS) return days;
  throw UsageError.of([{ typed: `--days ${text}`, description: `must be a whole number from 1 to ${MAX_DAYS}` }]);
}

function checkHost(name: string): void {
  if (isIP(name) || certificateIdentities({ subjectaltname: `DNS:${name}` }).length === 1) return;
  throw UsageError.of([
    { typed: `--host ${name}`, description: 'must be a host name or an IP address, without a port' },
  ]);
}

const isUri = (identity: string) => /^[a-z][a-z0-9+.-]*:/i.test(identity);
/** The identity in the form of the service. */
const identityOf = (identity: string) => (isUri(identity) ? identity : `CN=${identity}`);

/** The certificate of a client. Throws when the service could not identify a client by it. */
function clientOf(out: string, identity: string) {
  const problem = (description: string) => UsageError.of([{ typed: `--client ${identity}`, description }]);
  const names = isUri(identity) ? { subjectaltname: `URI:${identity}` } : { subject: { CN: identity } };
  if (
    certificateIdentities(names)[0] !== identityOf(identity) ||
    (!isUri(identity) && identity.length > MAX_COMMON_NAME_LENGTH)
  )
    throw problem(`must be a URI, or a common name of at most ${MAX_COMMON_NAME_LENGTH} characters, without spaces`);
  const base = join(out, `client-${identity.replace(/[^\w.-]+/g, '-')}`);
  const existing = readIf(`${base}.pem`);
  if (existing !== undefined && identityIn(certificateIn(base, existing)) !== identityOf(identity))
    throw problem(`would replace ${base}.pem, which is for another client: choose another --out`);
  return isUri(identity)
    ? { base, names: [{ type: 'url' as const, value: identity }] }
    : { base, names: [], commonName: identity };
}

const identityIn = ({ subject, subjectAltName }: X509Certificate) =>
  certificateIdentities({ subjectaltname: subjectAltName ?? '', subject: { CN: /^CN=(.*)$/m.exec(subject)?.[1] } })[0];

/** The names in the existing certificate. */
function hostsOf(base: string): string[] {
  const pem = readIf(`${base}.pem`);
  const names = pem === undefined ? '' : (certificateIn(base, pem).subjectAltName ?? '');
  const found = [...names.matchAll(/(?:^|, )(?:DNS|IP Address):([\w.:-]+)(?=,|$)/g)].map(([, name]) => name as string);
  return found.map((name) => (isIP(name) === 6 ? shortened(name) : name));
}

/** `::1` for `0:0:0:0:0:0:0:1`. */
const shortened = (address: string) => new URL(`http://[${address}]`).hostname.slice(1, -1);

function certificateIn(base: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch {
    throw new UsageError(`${base}.pem is not a certificate: choose another --out`);
  }
}

const readIf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

/** Writes a new key, but never replaces an existing one. A certificate is replaced atomically. */
async function write(base: string, description: string, { cert, key }: Pair, hasKey: boolean): Promise<void> {
  if (!hasKey) await writeFileAtomically(`${base}.key`, Buffer.from(key), { mode: 0o600, overwrite: false });
  await writeFileAtomically(`${base}.pem`, Buffer.from(cert), { mode: 0o644 });
  const until = new Date(new X509Certificate(cert).validTo).toISOString().slice(0, 10);
  terminal.out(`${hasKey ? 'renewed' : 'created'} ${base}.pem until ${until}: ${description}`);
}

function instructions(out: string, made: { readonly base: string; readonly identity: string } | undefined): string {
  const client = made?.base;
  const ca = join(out, 'ca.pem');
  const server = join(out, 'server');
  const mutual = client === undefined ? '' : ` TLS_CLIENT_CA_FILE=${ca}`;
  const own = client === undefined ? '' : ` AGENTLLM_CERT=${client}.pem AGENTLLM_KEY=${client}.key`;
  const pair = client === undefined ? '' : ` -cert ${client}.pem -key ${client}.key`;
  return [
    '',
    `For tests only: with ${join(out, 'ca.key')}, anyone can act as any service or client.`,
    '',
    'The service:',
    `  export TLS_CERT_FILE=${server}.pem TLS_KEY_FILE=${server}.key${mutual}`,
    '  agentllm serve',
    'The clients:',
    `  export AGENTLLM_CA=${ca}${own}`,
    '  agentllm agents list',
    `  grpcurl -cacert ${ca}${pair} 127.0.0.1:50051 list`,
    `  curl --cacert ${ca}${pair.replace(' -cert', ' --cert').replace(' -key', ' --key')} https://127.0.0.1:8081/v1/agents`,
    ...(made
      ? [
          `  agentllm token create --role viewer --certificate ${identityOf(made.identity)}   gives that client read access`,
        ]
      : []),
  ].join('\n');
}
