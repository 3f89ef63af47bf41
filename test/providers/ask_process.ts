// Asks a provider in a process of its own, whose environment is the test's to choose.
// Usage: node --import tsx ask_process.ts '<JSON of AskJob>'; prints the answers as JSON.
import { addressList } from '../../src/domain/addresses.js';
import type { Provider } from '../../src/domain/rows.js';
import { checkProvider } from '../../src/providers/check_provider.js';
import { fakeResolver, type Resolutions } from './fake_resolver.js';

export interface AskJob {
  readonly provider: Provider;
  readonly key: string;
  readonly models: readonly string[];
  readonly names: Readonly<Record<string, Resolutions>>;
}

const { provider, key, models, names } = JSON.parse(process.argv[2] ?? '') as AskJob;
fakeResolver(names);
const options = { allowed: addressList(['127.0.0.0/8', '::1/128']), timeoutMs: 10_000 };
process.stdout.write(JSON.stringify(await checkProvider(provider, key, models, options)));
