#include "app/commands.h"
#include "base/error.h"
#include "io/safetensors.h"
#include "run/trace.h"

namespace nibble::app {
namespace {

struct Options {
  std::string model, prompt, out;
  std::vector<std::string> images;
  int64_t max_new_tokens = 128;
  bool raw = false;

  run::Prompt make(const LoadedModel& loaded) const {
    if (prompt.empty()) fail("the prompt is empty; say something with --prompt");
    const std::vector<std::filesystem::path> paths(images.begin(), images.end());
    if (!raw) tell_of_chat(loaded.maker);
    run::Prompt out = raw ? loaded.maker.raw(prompt, paths) : loaded.maker.chat(prompt, paths);
    if (!paths.empty()) tell_of_large(out, paths.size() == 1 ? paths[0].string() : "the prompt");
    return out;
  }
};

void add_prompt(CLI::App* command, Options& o) {
  command->add_option("--image", o.images, "A picture; may be repeated")->type_name("FILE");
  command->add_option("--prompt", o.prompt, "What to ask")->required()->type_name("P");
  command->add_flag("--raw", o.raw, "Take the prompt as it is, without the chat format");
}

void trace(const Options& o, const Common& common) {
  check_target(o.out, o.images, "trace");
  LoadedModel loaded(o.model, common);
  const run::Prompt prompt = o.make(loaded);
  run::TraceObserver observer;
  loaded.runner.observe(&observer);
  const run::Prompt* pointer = &prompt;
  std::vector<run::Sequence> sequences = loaded.runner.start({&pointer, 1});
  run::Sequence* sequence = &sequences[0];
  const auto tokens = static_cast<int64_t>(prompt.ids.size());
  const Matrix logits = loaded.runner.feed({&sequence, 1}, {&tokens, 1}, false);

  const std::map<std::string, Matrix> outputs = observer.take();
  std::vector<io::PlannedTensor> tensors;
  for (const auto& [name, matrix] : outputs)
    tensors.push_back(io::planned(name + ".output", matrix.tensor()));
  tensors.push_back(io::planned("logits", logits.tensor()));
  const auto bytes = [](const std::vector<int64_t>& v) {
    return reinterpret_cast<const std::byte*>(v.data());
  };
  tensors.push_back(io::planned("input_ids", {DType::i64, {tokens}, bytes(prompt.ids)}));
  const std::vector<data::NamedTensor> inputs = loaded.maker.reference_tensors(prompt);
  for (const data::NamedTensor& input : inputs)
    tensors.push_back(io::planned(input.name, input.tensor.view()));
  const size_t count = tensors.size();
  io::write_safetensors(o.out, std::move(tensors));
  print_written(o.out, fmt::format("{} tensors written to {}\n", count, o.out));
}

}  // namespace

void add_generate(CLI::App& app, Common& common) {
  auto o = std::make_shared<Options>();
  CLI::App* command = add_command(
      app, common, "generate", "Answer a prompt (greedy); only the answer goes to standard output",
      "nibble generate models/qwen2-vl-tiny --image pictures/evaluation/images/0000.png --prompt 'Describe "
      "this image.'",
      [o, &common] {
        LoadedModel loaded(o->model, common);
        const run::Prompt prompt = o->make(loaded);
        const run::Prompt* pointer = &prompt;
        print(loaded.maker.decode(loaded.runner.generate({&pointer, 1}, o->max_new_tokens)[0]) + "\n");
      });
  add_model(command, o->model);
  add_prompt(command, *o);
  add_max_new_tokens(command, o->max_new_tokens);
  add_compute(command, common);
}

void add_trace(CLI::App& app, Common& common) {
  auto o = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, common, "trace",
                  "Write the output of every module for a prompt, for finding the first one that differs",
                  "nibble trace models/qwen2-vl-tiny --image pictures/evaluation/images/0000.png --prompt "
                  "'What is this?' -o trace.safetensors",
                  [o, &common] { trace(*o, common); });
  add_model(command, o->model);
  add_prompt(command, *o);
  command->add_option("-o,--out", o->out, "Where to write")->required()->type_name("FILE");
  add_compute(command, common);
}

}  // namespace nibble::app
