import dns, { type LookupAddress } from 'node:dns';
import { syncBuiltinESMExports } from 'node:module';

/** What a name resolves to: addresses, the code of an error, or nothing ever. */
export type Resolution = readonly string[] | { readonly code: string } | 'silence';
/** One for all lookups of a name, or one for each in turn, the last of them for ever. */
export type Resolutions = Resolution | { readonly inTurn: readonly Resolution[] };

/** Puts a resolver in the place of the system's, until the returned function is called; counts what it is asked. */
export function fakeResolver(table: Readonly<Record<string, Resolutions>>): { asked: string[]; restore: () => void } {
  const real = dns.lookup;
  const asked: string[] = [];
  const put = (lookup: unknown) => {
    dns.lookup = lookup as typeof dns.lookup;
    syncBuiltinESMExports();
  };
  put((name: string, options: dns.LookupOptions, done: (error: Error | null, found?: LookupAddress[]) => void) => {
    const all = table[name];
    if (!all) return (real as (...all: unknown[]) => void)(name, options, done);
    asked.push(name);
    const known = resolutionOf(all, asked.filter((one) => one === name).length);
    if (known === 'silence') return;
    if ('code' in known) return void setImmediate(done, Object.assign(new Error('lookup'), known));
    const found = known.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    setImmediate(done, null, found);
  });
  return { asked, restore: () => put(real) };
}

function resolutionOf(all: Resolutions, turn: number): Resolution {
  if (all === 'silence' || !('inTurn' in all)) return all;
  return all.inTurn[Math.min(turn, all.inTurn.length) - 1] ?? [];
}
