import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { endOnSignals } from '../../vm/end-on-signals.js';
import { Failure, runMain } from '../../vm/failure.js';
import { defaultGuest } from '../../vm/guest.js';
import { kernelSelftests, type KernelSelftests } from '../../vm/kernel-selftests.js';
import {
  collections,
  nameOf,
  programsOf,
  unknownFiles,
  type SelftestProgram,
} from './collections.js';
import { compare } from './differences.js';
import { runPass, type Pass, type Run } from './pass.js';
import { describe, json, type SelftestReport } from './report.js';

interface SelftestOptions {
  filter?: string[];
  kernel: string;
  cpus: number;
  runs: number;
  json?: string;
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a positive number.');
  return number;
}

/** The programs of all collections, or those whose names contain one of the texts. */
async function plan(
  { directory }: KernelSelftests,
  filter: readonly string[] | undefined,
): Promise<SelftestProgram[]> {
  const programs: SelftestProgram[] = [];
  for (const collection of collections) {
    const files: string[] = [];
    for (const entry of await readdir(join(directory, collection.name), { withFileTypes: true })) {
      const path = join(directory, collection.name, entry.name);
      if (entry.isFile() && ((await stat(path)).mode & 0o111) !== 0) files.push(entry.name);
    }
    for (const file of unknownFiles(collection, files)) {
      process.stderr.write(
        `collections.ts speaks of ${collection.name}/${file}, and there is no such program.\n`,
      );
    }
    programs.push(...programsOf(collection, files));
  }
  return programs.filter(
    (program) => filter === undefined || filter.some((text) => nameOf(program).includes(text)),
  );
}

/** What all passes together have shown. */
function judge(
  { version }: KernelSelftests,
  { cpus }: SelftestOptions,
  programs: readonly SelftestProgram[],
  passes: Pick<SelftestReport, 'stock' | 'other'>,
): SelftestReport {
  const comparison = compare(
    programs.map((program, index) => {
      const runsIn = (all: readonly Pass[]): Run[] => all.flatMap(({ runs }) => runs[index] ?? []);
      return {
        name: nameOf(program),
        stock: runsIn(passes.stock),
        other: runsIn(passes.other),
      };
    }),
  );
  return { selftests: version, cpus, ...passes, ...comparison };
}

/** Runs everything on both kernels, as often as wanted. What is known so far is in the file. */
async function runAll(
  selftests: KernelSelftests,
  programs: readonly SelftestProgram[],
  options: SelftestOptions,
): Promise<SelftestReport> {
  const once = (kernel: string): Promise<Pass> =>
    runPass(kernel, options.cpus, selftests, programs);
  const other: SelftestReport['other'] = [await once(options.kernel)];
  const stock: SelftestReport['stock'] = [await once('stock')];
  for (;;) {
    const report = judge(selftests, options, programs, { stock, other });
    if (options.json !== undefined) await writeFile(options.json, json(report));
    if (stock.length < options.runs) stock.push(await once('stock'));
    else if (other.length < options.runs) other.push(await once(options.kernel));
    else return report;
  }
}

async function main(): Promise<number> {
  const options = new Command('npm run selftests --')
    .description("Runs the kernel's own selftests on the stock kernel and on ours, and compares.")
    .option('--filter <text...>', 'only programs whose collection/name contains one of these')
    .option('--kernel <name>', 'compared with stock: normal, or the path of a bzImage', 'normal')
    .addOption(
      new Option('--cpus <n>', 'CPUs of the guests').argParser(positive).default(defaultGuest.cpus),
    )
    .addOption(
      new Option('--runs <n>', 'on each kernel: what differs on stock itself is named as such')
        .argParser(positive)
        .default(2),
    )
    .option('--json <file>', 'write all results there, with the output of every program')
    .parse()
    .opts<SelftestOptions>();
  const selftests = await kernelSelftests(collections.map(({ name }) => name));
  const programs = await plan(selftests, options.filter);
  if (programs.length === 0) {
    throw new Failure(`No program's name contains ${options.filter?.join(' or ') ?? ''}.`, 2);
  }
  const report = await runAll(selftests, programs, options);
  process.stdout.write(describe(report));
  return report.differences.length === 0 ? 0 : 1;
}

endOnSignals();
await runMain(main);
