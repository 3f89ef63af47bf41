import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { installedSpecification, specificationFrom } from '../../../src/client/ai/specification.js';

/** A project with packages of the given versions, by their paths below node_modules. */
async function project(versions: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-ai-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  for (const [path, version] of Object.entries(versions)) {
    const folder = join(directory, 'node_modules', path);
    await mkdir(folder, { recursive: true });
    const exports = { './package.json': './package.json' };
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: path, version, exports }));
  }
  return join(directory, 'main.js');
}

describe('specificationFrom', () => {
  it.each([
    ['v3', { ai: '6.0.326', '@ai-sdk/provider': '3.0.19' }],
    ['v4', { ai: '7.0.173', '@ai-sdk/provider': '4.0.38' }],
    ['v4', { '@ai-sdk/provider': '4.0.38' }],
    // The one that `ai` uses decides.
    ['v3', { ai: '6.0.326', 'ai/node_modules/@ai-sdk/provider': '3.0.19', '@ai-sdk/provider': '4.0.38' }],
    ['v3', {}],
  ])('is %s for %j', async (expected, versions) => {
    expect(specificationFrom([await project(versions)])).toBe(expected);
  });

  it('uses the first base from which the package is found', async () => {
    const [none, seven] = [await project({}), await project({ '@ai-sdk/provider': '4.0.1' })];
    expect(specificationFrom([none, seven])).toBe('v4');
  });
});

describe('installedSpecification', () => {
  it('is that of the AI SDK of this repository', () => {
    expect(installedSpecification()).toBe('v3');
  });
});
