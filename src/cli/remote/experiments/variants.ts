import type { ExperimentOverrides, ExperimentVariant } from '../../../../gen/ts/agentllm/v1/experiment.js';
import { limits } from '../../../limits.js';
import { type Problem, UsageError } from '../../kit/inputs.js';
import { BadValue, configId, int64, integer, type Kind, model, number, percent } from '../../kit/values.js';

/* Variants and weights: their syntax on the command line, and their changes by an update. */

/** A variant of the command line. Variants without a weight share the remaining weight. */
export interface TypedVariant {
  readonly typed: string;
  readonly name: string;
  readonly config_id?: number;
  readonly overrides?: Partial<ExperimentOverrides>;
  readonly weight?: number;
}

const FORM =
  'must have the form NAME=SETTINGS@WEIGHT%, such as cheap=openai/gpt-5.4-mini@50% or cool=temperature=0.2,max-tokens=500@10%';
const CONTROL = 'control';

/** The settings that a variant can override, with their fields. */
const SETTINGS: Readonly<Record<string, { readonly at: string; readonly extra?: true; readonly kind: Kind }>> = {
  temperature: { at: 'temperature', kind: number },
  'max-tokens': { at: 'max_tokens', kind: integer },
  'top-p': { at: 'top_p', kind: number },
  'reasoning-effort': { at: 'reasoning_effort', extra: true, kind: { read: (raw) => raw } },
  'thinking-budget': { at: 'thinking_budget_tokens', extra: true, kind: integer },
  seed: { at: 'seed', extra: true, kind: int64 },
  'request-timeout': { at: 'request_timeout_ms', extra: true, kind: integer },
};

/** A variant: `cheap=openai/gpt-5.4-mini@50%`. */
export const variant: Kind = {
  value: 'variant',
  read(raw): TypedVariant {
    const at = raw.indexOf('=');
    if (at < 1) throw new BadValue(FORM);
    return { typed: raw, name: raw.slice(0, at), ...readSettings(raw.slice(at + 1)) };
  },
};

/** The control: as a variant, but its name can be omitted. */
export const control: Kind = {
  value: 'variant',
  read(raw): TypedVariant {
    const [head = ''] = raw.split(/[=,]/, 1);
    const isNamed = raw.startsWith(`${head}=`) && !(head in SETTINGS) && head !== 'config';
    if (isNamed) return variant.read(raw) as TypedVariant;
    return { typed: raw, name: CONTROL, ...readSettings(raw) };
  },
};

/** A weight for a variant: `cheap=30%`. */
export const weight: Kind = {
  value: 'name=percent',
  read(raw) {
    const at = raw.lastIndexOf('=');
    if (at < 1) throw new BadValue('must have the form NAME=WEIGHT%, such as cheap=30%');
    return { typed: raw, name: raw.slice(0, at), weight: percent.read(raw.slice(at + 1)) };
  },
};

function readSettings(raw: string): Omit<TypedVariant, 'name' | 'typed'> {
  const [, settings = '', share] = /^(.*?)(?:@(\d+(?:\.\d+)?%))?$/s.exec(raw) ?? [];
  const read: { config_id?: number; overrides: Record<string, unknown> } = { overrides: {} };
  for (const part of settings.split(',')) readSetting(part, read);
  return {
    ...(read.config_id !== undefined && { config_id: read.config_id }),
    ...(Object.keys(read.overrides).length > 0 && { overrides: read.overrides }),
    ...(share !== undefined && { weight: percent.read(share) as number }),
  };
}

function readSetting(part: string, read: { config_id?: number; overrides: Record<string, unknown> }): void {
  const [, key, value = ''] = /^([\w-]+)=(.+)$/s.exec(part) ?? [];
  if (part === 'primary') return;
  if (key === 'config' || /^\d+$/.test(part)) {
    read.config_id = configId.read(key ? value : part) as number;
  } else if (key !== undefined) {
    const setting = SETTINGS[key];
    if (!setting) throw new BadValue(`has no setting ${key}; the settings are ${Object.keys(SETTINGS).join(', ')}`);
    const parsed = setting.kind.read(value);
    const extra = read.overrides['extra_params'] as object | undefined;
    if (setting.extra) read.overrides['extra_params'] = { ...extra, [setting.at]: parsed };
    else read.overrides[setting.at] = parsed;
  } else if (part.includes('/')) {
    [read.overrides['provider'], read.overrides['model_name']] = model.read(part) as [string, string];
  } else throw new BadValue(FORM);
}

/** A variant without its weight. */
const definitionOf = ({ name, config_id, overrides }: TypedVariant) => ({
  name,
  config_id,
  overrides: overrides as ExperimentOverrides | undefined,
});

/** The variants of a new experiment, the control first. The default control is the primary config. */
export function createdVariants(
  typedControl: TypedVariant | undefined,
  others: readonly TypedVariant[],
): Partial<ExperimentVariant>[] {
  const all = [typedControl ?? { typed: 'primary', name: CONTROL }, ...others];
  const left = limits.buckets - all.reduce((sum, one) => sum + (one.weight ?? 0), 0);
  const open = all.filter(({ weight: share }) => share === undefined).length;
  if (left < 0 || (open === 0 && left !== 0)) throw new UsageError(wrongSum(limits.buckets - left));
  // The first variants get the basis points that remain after the division.
  let leftOver = open > 0 ? left % open : 0;
  const shareOf = (one: TypedVariant) => one.weight ?? Math.floor(left / open) + (leftOver-- > 0 ? 1 : 0);
  return all.map((one, at) => ({ ...definitionOf(one), control: at === 0, weight_basis_points: shareOf(one) }));
}

const wrongSum = (sum: number) =>
  `the weights add up to ${sum / 100} % instead of 100 %; a variant without a weight gets the remaining weight`;

/** The changes of an update to the variants. */
export interface VariantChanges {
  readonly set: readonly TypedVariant[];
  readonly weights: readonly (Pick<TypedVariant, 'typed' | 'name'> & { readonly weight: number })[];
  readonly removed: readonly string[];
}

/**
 * The variants after an update. Variants that the update does not name keep their weights. The weight of the control
 * changes by the difference unless the update names the control.
 */
export function updatedVariants(
  before: readonly ExperimentVariant[],
  { set, weights, removed }: VariantChanges,
): Partial<ExperimentVariant>[] {
  const problems: Problem[] = [];
  const known = (name: string) => before.some((one) => one.name === name) || set.some((one) => one.name === name);
  const names = before.map(({ name }) => name).join(', ');
  const unknown = (typed: string) =>
    problems.push({ typed, description: `is not a variant; the variants are ${names}` });
  for (const { name, typed } of weights) if (!known(name)) unknown(`--weight ${typed}`);
  for (const name of removed) if (!before.some((one) => one.name === name)) unknown(`--remove-variant ${name}`);
  const shares = new Map<string, number>();
  for (const one of [...set, ...weights]) if (one.weight !== undefined) shares.set(one.name, one.weight);
  const after: Partial<ExperimentVariant>[] = before
    .filter(({ name }) => !removed.includes(name))
    .map(({ buckets: _, ...one }) => ({ ...one, ...settingsOf(set.find(({ name }) => name === one.name)) }));
  for (const one of set.filter(({ name }) => !before.some((known) => known.name === name))) {
    if (one.weight === undefined)
      problems.push({ typed: `--variant ${one.typed}`, description: 'needs a weight: @10%' });
    after.push({ ...definitionOf(one), control: false, weight_basis_points: 0 });
  }
  if (problems.length > 0) throw UsageError.of(problems);
  return weighed(after, shares);
}

const settingsOf = (one: TypedVariant | undefined) =>
  one ? { config_id: one.config_id, overrides: one.overrides as ExperimentOverrides | undefined } : {};

function weighed(
  variants: readonly Partial<ExperimentVariant>[],
  shares: ReadonlyMap<string, number>,
): Partial<ExperimentVariant>[] {
  const shareOf = ({ name = '', weight_basis_points: before = 0 }: Partial<ExperimentVariant>) =>
    shares.get(name) ?? before;
  const sum = variants.reduce((total, one) => total + shareOf(one), 0);
  const takesRest = variants.some((one) => one.control && !shares.has(one.name ?? ''));
  const rest = limits.buckets - sum;
  return variants.map((one) => {
    const share = shareOf(one) + (one.control && takesRest ? rest : 0);
    if (share < 0 || (!takesRest && rest !== 0)) throw new UsageError(wrongSum(sum));
    return { ...one, weight_basis_points: share };
  });
}

/** The settings of a variant: `primary config, openai/gpt-5.4-mini, temperature 0.2`. */
export function settingsText({ config_id, overrides }: ExperimentVariant): string {
  const { provider, model_name, extra_params, ...rest } = overrides ?? {};
  const parameters = Object.entries({ ...rest, ...extra_params }).filter(
    ([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0),
  );
  return [
    config_id === undefined ? 'primary config' : `config ${config_id}`,
    ...(model_name === undefined ? [] : [provider === undefined ? model_name : `${provider}/${model_name}`]),
    ...parameters.map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(' ') : String(value)}`),
  ].join(', ');
}

/** Basis points as a percentage: `33.34 %`. */
export const percentText = (basisPoints: number | undefined): string => `${(basisPoints ?? 0) / 100} %`;

/** The subjects that a change of weights moves to another variant, in basis points of all subjects. */
export interface Move {
  readonly from: string;
  readonly to: string;
  readonly basisPoints: number;
}

/** The subjects that a change of weights moves. A bucket is one basis point of the subjects. */
export function movesBetween(before: readonly ExperimentVariant[], after: readonly ExperimentVariant[]): Move[] {
  const [earlier, now] = [ownersIn(before), ownersIn(after)];
  const moves = new Map<string, { from: string; to: string; basisPoints: number }>();
  earlier.forEach((from, bucket) => {
    const to = now[bucket];
    if (to === undefined || to === from) return;
    const key = JSON.stringify([from, to]);
    const known = moves.get(key) ?? { from, to, basisPoints: 0 };
    known.basisPoints++;
    moves.set(key, known);
  });
  return [...moves.values()];
}

/** The variant of each bucket. */
function ownersIn(variants: readonly ExperimentVariant[]): string[] {
  const owners: string[] = new Array<string>(limits.buckets);
  for (const { name, buckets } of variants) for (const { start, end } of buckets) owners.fill(name, start, end);
  return owners;
}
